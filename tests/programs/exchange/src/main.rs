//! The data test of PV devices with what Linux has: its front ends in a guest, the other sides in dom0. Prints `exchange: fine: ...`, or
//! fails with what does not hold.
//!
//! - `prepare DISK SEED` in dom0, then `exchange DISK SEED` in the guest, then `verify DISK SEED` in dom0.
//! - `answer INTERFACE MESSAGES` in a guest, then `ask INTERFACE MAC MESSAGES` in dom0, whose interface is a bridge.

mod disk;
mod network;
mod socket;

use std::error::Error;
use std::process::ExitCode;

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(done) => {
            println!("exchange: fine: {}: {done}", words.join(" "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("exchange: FAILED: {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<String, Failure> {
    match *words {
        ["prepare", path, seed] => disk::prepare(path, seed.parse()?),
        ["exchange", path, seed] => disk::exchange(path, seed.parse()?),
        ["verify", path, seed] => disk::verify(path, seed.parse()?),
        ["answer", interface, messages] => network::answer(interface, messages.parse()?),
        ["ask", interface, mac, messages] => {
            network::ask(interface, network::address(mac)?, messages.parse()?)
        }
        _ => Err("what is to be done? See the program's source".into()),
    }
}
