//! `ox top`: what domains use up, again and again.

mod sample;
mod screen;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::cli::Top;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::output;
use sample::{Order, Sample, View};

/// Shows until the user has seen enough, or as often as was asked for.
pub fn run(arguments: &Top, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    if arguments.batch {
        return batch(arguments, host, out);
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "the output is no terminal: use --batch".to_owned(),
        ));
    }
    // What does not work is better told before the screen is another's.
    let mut last = Sample::take(host)?;
    let mut before = Instant::now();
    let mut view = View::new(&last, None);
    let mut screen = screen::Screen::open().context(|| "take the terminal over".to_owned())?;
    let mut order = Order::default();
    let mut shown = 0;
    loop {
        screen
            .draw(&view, order)
            .context(|| "draw on the terminal".to_owned())?;
        shown += 1;
        if arguments.count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
        let deadline = Instant::now() + arguments.every();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match screen
                .key(left)
                .context(|| "read the keyboard".to_owned())?
            {
                Some(screen::Key::Quit) => return Ok(()),
                Some(screen::Key::Sort) => order = order.next(),
                Some(screen::Key::Redraw) => {}
                None => break,
            }
            screen
                .draw(&view, order)
                .context(|| "draw on the terminal".to_owned())?;
        }
        let now = Sample::take(host)?;
        view = View::new(&now, Some((&last, before.elapsed())));
        (last, before) = (now, Instant::now());
    }
}

/// Tables below each other.
fn batch(arguments: &Top, host: &mut dyn Toolstack, out: &mut dyn Write) -> Result<(), Failure> {
    let mut last: Option<(Sample, Instant)> = None;
    for nth in 0.. {
        if nth > 0 {
            host.sleep(arguments.every());
        }
        let now = Sample::take(host)?;
        let since = last
            .as_ref()
            .map(|(sample, time)| (sample, time.elapsed().max(Duration::from_millis(1))));
        let view = View::new(&now, since);
        for line in &view.head {
            writeln!(out, "{line}")?;
        }
        let rows = view.rows(Order::default()).into_iter().map(Vec::from);
        output::table(out, &sample::HEADER, &sample::RIGHT, rows)?;
        out.flush()?;
        last = Some((now, Instant::now()));
        if arguments.count.is_some_and(|count| nth + 1 >= count) {
            break;
        }
    }
    Ok(())
}
