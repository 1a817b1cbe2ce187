//! What the chart's init container does: the plugin's binary, where the container runtime of the node looks for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// What a runtime calls the plugin by.
const PLUGIN: &str = "cellwall-cni";
/// The command beside it: `cellwall node disable` has to be at hand on a node without an API server.
const COMMAND: &str = "cellwall";

/// Copies `program` into `folder` as the plugin, with the command as a link to it; what was done.
///
/// A file that is there is replaced in one step: a runtime runs the old one or the new one.
pub(crate) fn install(program: &Path, folder: &Path) -> Result<String> {
    let hint = || {
        format!(
            "cannot write into {}: the folder has to be there and be root's (chown root {}), since this container has no \
             right to write into those of others",
            folder.display(),
            folder.display()
        )
    };
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let plugin = folder.join(PLUGIN);
    let is_there = fs::read(&plugin).is_ok_and(|there| there == bytes);
    if !is_there {
        replace(&plugin, |fresh| write(fresh, &bytes)).with_context(hint)?;
    }
    let command = folder.join(COMMAND);
    if fs::read_link(&command).ok().as_deref() != Some(Path::new(PLUGIN)) {
        replace(&command, |fresh| symlink(PLUGIN, fresh)).with_context(hint)?;
    }
    let what = if is_there { "is there already" } else { "is installed" };
    Ok(format!("{} {what} ({} bytes)", plugin.display(), bytes.len()))
}

/// Makes a file under another name and gives it its own.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // One that a crash has left may be a link by now.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = make(&fresh).and_then(|()| fs::rename(&fresh, path));
    if made.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    made
}

/// Readable and executable by all, writable by its owner, and no set-uid (CVE-2024-33522).
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn the_plugin_is_replaced_in_one_step_and_the_command_leads_to_it() {
        let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let (program, bin) = (folder.path().join("program"), folder.path().join("bin"));
        fs::write(&program, "one").expect("ours");
        let error = install(&program, &bin).expect_err("no such folder");
        assert!(format!("{error:#}").contains("has to be there"), "{error:#}");

        fs::create_dir(&bin).expect("ours");
        fs::write(bin.join("precious"), "precious").expect("ours");
        symlink("precious", bin.join("cellwall-cni.new")).expect("ours");
        assert!(install(&program, &bin).expect("ours").contains("is installed"));
        let plugin = fs::metadata(bin.join(PLUGIN)).expect("there");
        assert_eq!(plugin.permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read(bin.join(COMMAND)).expect("there"), b"one");
        assert_eq!(fs::read(bin.join("precious")).expect("there"), b"precious", "a link is not followed");

        assert!(install(&program, &bin).expect("ours").contains("is there already"));
        assert_eq!(fs::metadata(bin.join(PLUGIN)).expect("there").ino(), plugin.ino());
        // What runs the old one goes on with the old one.
        let old = File::open(bin.join(PLUGIN)).expect("there");
        fs::write(&program, "two").expect("ours");
        assert!(install(&program, &bin).expect("ours").contains("is installed"));
        assert_eq!(io::read_to_string(old).expect("there"), "one");
        assert_eq!(fs::read(bin.join(COMMAND)).expect("there"), b"two");
        let mut names: Vec<_> =
            fs::read_dir(&bin).expect("there").map(|entry| entry.expect("one").file_name()).collect();
        names.sort();
        assert_eq!(names, [COMMAND, PLUGIN, "precious"]);
    }
}
