//! The terminal.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::crossterm::terminal;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame, TerminalOptions, Viewport};

use super::sample::{HEADER, Order, RIGHT, View};

/// What a serial line has that does not tell its size.
const USUAL: Rect = Rect::new(0, 0, 80, 24);

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// No more.
    Quit,
    /// Another order.
    Sort,
    /// The same anew: the terminal has another size.
    Redraw,
}

/// The whole screen, until this is dropped.
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes it over.
    pub fn open() -> io::Result<Self> {
        let known = terminal::size().is_ok_and(|(columns, rows)| columns > 0 && rows > 0);
        let viewport = if known {
            Viewport::Fullscreen
        } else {
            Viewport::Fixed(USUAL)
        };
        let mut terminal = ratatui::try_init_with_options(TerminalOptions { viewport })?;
        terminal.clear()?;
        Ok(Self { terminal })
    }

    /// Draws everything.
    pub fn draw(&mut self, view: &View, order: Order) -> io::Result<()> {
        self.terminal
            .draw(|frame| draw(frame, view, order))
            .map(drop)
    }

    /// A key that means something, if one is typed within `limit`.
    pub fn key(&mut self, limit: Duration) -> io::Result<Option<Key>> {
        if !event::poll(limit)? {
            return Ok(None);
        }
        Ok(Some(match event::read()? {
            Event::Key(key) => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
                KeyCode::Char('s') => Key::Sort,
                _ => Key::Redraw,
            },
            _ => Key::Redraw,
        }))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn draw(frame: &mut Frame<'_>, view: &View, order: Order) {
    let head = u16::try_from(view.head.len()).unwrap_or(u16::MAX);
    let areas = Layout::vertical([
        Constraint::Length(head),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [top, middle, bottom] = areas.areas(frame.area());
    let lines: Vec<Line<'_>> = view.head.iter().map(|line| line.as_str().into()).collect();
    frame.render_widget(Paragraph::new(Text::from(lines)), top);

    let cell = |column: usize, text: String| {
        let text = Text::from(text);
        Cell::from(if RIGHT.contains(&column) {
            text.right_aligned()
        } else {
            text
        })
    };
    let rows = view.rows(order).into_iter().map(|cells| {
        let cells = cells.into_iter().enumerate();
        Row::new(cells.map(|(column, text)| cell(column, text)))
    });
    let header = HEADER.iter().enumerate();
    let header = Row::new(header.map(|(column, text)| cell(column, (*text).to_owned())));
    let widths = [
        Constraint::Min(10),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(5),
    ];
    let table = Table::new(rows, widths).header(header.style(Style::new().reversed()));
    frame.render_widget(table, middle);
    let keys = format!(
        "sorted by {}   s: sort by something else   q: quit",
        order.name()
    );
    frame.render_widget(Paragraph::new(keys), bottom);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::host::fake::Fake;
    use crate::top::sample::Sample;

    #[test]
    fn domains_are_on_the_screen() -> Result<(), Box<dyn std::error::Error>> {
        let mut host = Fake::new();
        host.0.borrow_mut().add(3, "demo");
        let sample = Sample::take(&mut host)?;
        let view = View::new(&sample, None);
        let mut terminal = Terminal::new(TestBackend::new(80, 10))?;
        terminal.draw(|frame| draw(frame, &view, Order::Name))?;
        let text = terminal.backend().to_string();
        for words in [
            "ox top - Xen 4.17.5",
            "Mem: 0k total",
            "Domain-0              0 -b----      12.3",
            "demo                  3 -b----      12.3",
            "sorted by name",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        Ok(())
    }
}
