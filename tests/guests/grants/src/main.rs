//! A guest in dom0's place that grants pages to itself and to domains that it makes, and has theirs granted. It prints
//! `grants: NAME: ok` for what holds, and ends with a panic otherwise.
#![no_std]
#![no_main]

mod calls;
mod copies;
mod deaths;
mod exhaustion;
mod limits;
mod maps;
mod memory;
mod peer;
mod scatter;
mod table;

use oxen_guest_runtime::line;

#[unsafe(no_mangle)]
fn guest_main() {
    table::set_up();
    maps::of_itself();
    maps::with_a_peer();
    copies::run();
    // The first round leaves what stays: parts of its list of handles.
    let mut free = 0;
    for round in 0..2 {
        limits::run();
        deaths::peer_in_use();
        deaths::in_both_orders();
        let now = calls::free_pages_at_rest(free);
        if round > 0 {
            assert!(now == free, "{free} pages were free, {now} are now");
            line!("grants: memory: ok");
        }
        free = now;
    }
    exhaustion::run();
}

/// Says that something holds.
fn passed(name: &str) {
    line!("grants: {name}: ok");
}
