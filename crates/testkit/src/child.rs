//! Processes that do not outlive the test that started them, not even one that is killed.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::Errno;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Starts a process that the kernel kills when the calling thread ends, in whatever way.
///
/// The thread and not the process is what the kernel goes by, so this is called from one that lives as long as the test.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    with(command, || Ok(()))
}

/// As [`spawn`]; the new process does `first` before it becomes the program. Nothing in it may allocate or take a lock.
pub(crate) fn with(
    command: &mut Command,
    mut first: impl FnMut() -> Result<(), Errno> + Send + Sync + 'static,
) -> io::Result<Child> {
    let parent = getpid();
    let bound = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent that has gone before that is not waited for.
        if getppid() != Some(parent) {
            return Err(Errno::SRCH.into());
        }
        Ok(first()?)
    };
    // JUSTIFICATION: the signal is a setting of the process that has it, so it is set between fork and exec.
    // SAFETY: what runs there are system calls; an error is a number; nothing allocates, locks or panics.
    #[expect(unsafe_code, reason = "pre_exec")]
    unsafe {
        command.pre_exec(bound);
    }
    command.spawn()
}
