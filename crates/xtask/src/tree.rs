//! The files of the tree, as the checks see them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Every text file that is under version control or could be.
#[derive(Debug, Default)]
pub(crate) struct Tree(Vec<File>);

/// One of them.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Tree {
    /// What `git` knows or would take.
    pub(crate) fn read() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).current_dir(&root);
        let output = git.output().context("cannot run git")?;
        ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
        let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let mut names: Vec<&str> = names.split_terminator('\0').collect();
        names.sort_unstable();
        names.dedup();
        // Binary files and removed ones are no text.
        Ok(Self(names.into_iter().filter_map(|name| File::read(&root, name)).collect()))
    }

    /// For tests of the checks.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        Self(files.iter().map(file).collect())
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.0.iter()
    }

    /// Those whose names end so.
    pub(crate) fn ending(&self, suffix: &'static str) -> impl Iterator<Item = &File> {
        self.files().filter(move |file| file.path.ends_with(suffix))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files().find(|file| file.path == path)
    }
}

impl File {
    fn read(root: &Path, name: &str) -> Option<Self> {
        let path: PathBuf = root.join(name);
        let text = std::fs::read_to_string(path).ok()?;
        Some(Self { path: name.to_owned(), text })
    }

    /// The crate it belongs to, by the name of its folder.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        let mut parts = self.path.split('/');
        match parts.next()? {
            "crates" => parts.next(),
            alone @ ("e2e" | "ebpf") => Some(alone),
            _ => None,
        }
    }

    /// Its lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}
