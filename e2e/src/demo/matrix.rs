//! Who reaches whom, found out by connecting.

use std::fmt::Write;
use std::thread;

use super::screen::Screen;
use super::world::{World, connects};

/// A row for each party and a column for each port: `✓`, `✗`, `.` for itself, `?` where IPv4 and IPv6 differ.
pub(super) struct Matrix {
    columns: Vec<String>,
    rows: Vec<(String, String)>,
}

impl Matrix {
    /// Tries all connections at once.
    pub(super) fn measure(world: &World) -> Self {
        let rows = thread::scope(|scope| {
            let tries: Vec<_> = world
                .parties
                .iter()
                .map(|from| {
                    let cells: Vec<_> = world
                        .targets()
                        .map(|(to, port)| {
                            let addresses = to.addresses(port).filter(|_| !from.is(to));
                            scope.spawn(move || {
                                let tried =
                                    addresses.map(|both| world.namespace(from).run(|| both.map(connects)));
                                cell(tried)
                            })
                        })
                        .collect();
                    (from.name.clone(), cells)
                })
                .collect();
            let join = |cells: Vec<thread::ScopedJoinHandle<'_, char>>| {
                cells.into_iter().map(|cell| cell.join().expect("no panic while connecting")).collect()
            };
            tries.into_iter().map(|(name, cells)| (name, join(cells))).collect()
        });
        Self { columns: columns(world), rows }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows.iter().map(|(name, row)| (name.as_str(), row.as_str()))
    }

    /// As text, with a legend.
    pub(super) fn table(&self, screen: &Screen) -> String {
        let mut text = format!("  {:<24}", "from \\ to");
        for column in &self.columns {
            let _ = write!(text, "{column}   ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        let mut dropped = 0;
        for (name, row) in &self.rows {
            let _ = write!(text, "  {name:<24}");
            for (sign, column) in row.chars().zip(&self.columns) {
                // In the middle of the column's name.
                let (left, right) = (column.len() / 2, column.len() + 2 - column.len() / 2);
                let painted = match sign {
                    '✓' => screen.good("✓"),
                    '.' => "·".to_owned(),
                    other => screen.bad(&other.to_string()),
                };
                let _ = write!(text, "{:left$}{painted}{:right$}", "", "");
                dropped += usize::from(sign == '✗');
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        let _ = write!(text, "  {} connected   {} dropped   · itself", screen.good("✓"), screen.bad("✗"));
        if dropped > 0 {
            let _ = write!(text, "      ({dropped} that were connected are dropped)");
        }
        text.push('\n');
        text
    }
}

fn columns(world: &World) -> Vec<String> {
    world.targets().map(|(to, port)| format!("{}:{port}", to.name)).collect()
}

fn cell(tried: Option<[bool; 2]>) -> char {
    match tried {
        None => '.',
        Some([true, true]) => '✓',
        Some([false, false]) => '✗',
        Some(_) => '?',
    }
}
