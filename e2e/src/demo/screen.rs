//! How the demo looks: colours on a terminal, plain text elsewhere.

use std::io::IsTerminal;

pub(super) struct Screen {
    colours: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self { colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }
}

impl Screen {
    pub(super) fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    pub(super) fn step(&self, number: u32, text: &str) {
        println!("\n{}", self.paint("1;36", &format!("[{number}] {text}")));
    }

    /// What was changed in a file.
    pub(super) fn change(&self, file: &str, old: &str, new: &str) {
        println!("\n  {file}:  {}  ->  {}", self.paint("31", old), self.paint("32", new));
    }

    pub(super) fn result(&self, text: &str) {
        println!("    {} {text}", self.paint("1", "=>"));
    }

    pub(super) fn command(&self, text: &str) {
        println!("\n  {}", self.paint("1", &format!("$ {text}")));
    }

    /// Beside an answer.
    pub(super) fn note(&self, text: &str) {
        println!("    {}", self.paint("2", &format!("({text})")));
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Lines as they are.
pub(super) fn text(text: &str) {
    println!("{text}");
}

/// Several lines, set apart.
pub(super) fn print(block: &str) {
    print!("\n{block}");
}

/// What a command answered.
pub(super) fn indented(text: &str) {
    for line in text.lines() {
        println!("{}", format!("    {line}").trim_end());
    }
}
