//! One network namespace, held by a descriptor.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::child;

/// A network namespace. It ends when this, and everything that runs in it, has ended.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

/// A process in a namespace; dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// The process itself, for its pipes and its id.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> io::Result<ExitStatus> {
        if self.0.try_wait()?.is_none() {
            let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(id) = id {
                rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
            }
        }
        self.0.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for one that has been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Namespace {
    /// A new one, without a name in the file system.
    pub fn new() -> io::Result<Self> {
        on_thread(|| {
            // JUSTIFICATION: there is no safe call that makes a network namespace.
            // SAFETY: only the network namespace of this thread changes, which ends right after.
            #[expect(unsafe_code, reason = "unshare(2)")]
            unsafe {
                rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
            }
            Self::open("/proc/thread-self/ns/net")
        })
    }

    /// One that is there, by a path that leads to it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// A path that leads to it, for as long as this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Moves this thread into the namespace, for good: what it opens and starts is in it.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Runs `code` on a thread in the namespace and returns what it returns. Sockets that it opens stay in the
    /// namespace. Panics when `code` does.
    pub fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            self.enter().expect("root, and a namespace that is alive");
            code()
        })
    }

    /// The same, or why it cannot be entered: what lies where namespaces are pinned may be none, or one that ends.
    pub fn try_run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(code())
        })
    }

    /// Starts a process in the namespace. It ends with the calling thread at the latest ([`child::spawn`]), so that one that is
    /// killed leaves nothing behind.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Process> {
        let file = self.file.try_clone()?;
        let enter = move || move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        child::with(command, enter).map(Process)
    }

    /// Runs `ip` commands (iproute2), in order, until one fails; each without the word `ip`.
    pub fn ip(&self, commands: &[&str]) -> io::Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.run(|| ip.spawn())?;
        let mut input = child.stdin.take().expect("it was piped");
        for command in commands {
            writeln!(input, "{command}")?;
        }
        drop(input);
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(format!("ip {commands:?}: {why}")))
    }

    /// Writes a setting under `/proc/sys/net`, which shows those of the thread's namespace.
    pub fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value))
    }

    /// Index of an interface.
    pub fn ifindex(&self, interface: &str) -> io::Result<u32> {
        self.run(|| {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
            Ok(rustix::net::netdevice::name_to_index(&socket, interface)?)
        })
    }

    /// Ethernet address of an interface.
    pub fn mac(&self, interface: &str) -> io::Result<[u8; 6]> {
        let mut show = Command::new("ip");
        show.args(["-o", "link", "show", "dev", interface]);
        let output = self.run(|| show.output())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found =
            text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).and_then(parse_mac);
        found.ok_or_else(|| io::Error::other(format!("no Ethernet address at {interface}: {text}")))
    }
}

fn on_thread<T: Send>(code: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(code).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.split(':').map(|part| u8::from_str_radix(part, 16).ok());
    let mac =
        [bytes.next()??, bytes.next()??, bytes.next()??, bytes.next()??, bytes.next()??, bytes.next()??];
    bytes.next().is_none().then_some(mac)
}

/// As `ip` writes it.
pub(super) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
