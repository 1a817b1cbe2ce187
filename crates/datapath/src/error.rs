//! What can go wrong, step by step.

use std::io;
use std::path::PathBuf;

/// The data path could not be opened. Nothing that was attached before has been detached.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A capability is not there.
    #[error("this process lacks {}; the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", .missing.join(" and "))]
    Capabilities {
        /// Names of the missing ones.
        missing: Vec<&'static str>,
    },
    /// The kernel is too old, or has something switched off.
    #[error("the kernel does not offer {feature}: {remedy}")]
    Kernel {
        /// What is missing.
        feature: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// There is no way to wait until no program reads what is about to change.
    #[error("the kernel offers no grace period: neither membarrier(2) nor a table of tables")]
    Grace(#[source] io::Error),
    /// The folder is not on a BPF file system.
    #[error("{} is not a BPF file system; mount one: mount -t bpf bpf {}", .path.display(), .path.display())]
    NotBpffs {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody else owns the folder of our pins.
    #[error("{} belongs to uid {owner}, not to us: it was not made by this agent; remove it or use another pin name",
            .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The pin name leads out of the BPF file system.
    #[error("the pin name {name:?} is not a plain file name without dots")]
    PinName {
        /// The name.
        name: String,
    },
    /// Another agent works with these pins.
    #[error("another agent holds {}; two must not act at once", .path.display())]
    Locked {
        /// The locked folder.
        path: PathBuf,
    },
    /// A file or folder of ours could not be read or written.
    #[error("cannot {step} {}", .path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A pinned table is not what this version needs.
    #[error(
        "the pinned table {table} has {field} {found} and {expected} is needed; set the capacity back to what it was, \
             or let the tables be made anew: stop the agent, run `cellwall node cleanup` for {}, start the agent. In \
             between this node's pods are as without policies",
        .folder.display()
    )]
    Table {
        /// Our folder in the BPF file system.
        folder: PathBuf,
        /// Name of the table.
        table: String,
        /// What differs.
        field: &'static str,
        /// What is pinned.
        found: u32,
        /// What the object and the settings ask for.
        expected: u32,
    },
    /// The object in this binary cannot be understood.
    #[error("the kernel object cannot be read")]
    Object(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refused the tables or the object.
    #[error("the kernel refuses the tables")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refuses the program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// What the verifier said.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The first read or write of the tables failed.
    #[error(transparent)]
    Access(#[from] TableError),
    /// A pinned link could not be taken over.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// A table could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} table {table}")]
pub struct TableError {
    /// What was tried.
    pub step: &'static str,
    /// Name of the table.
    pub table: &'static str,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A plan could not be performed to its end. What was done stays done: nothing is live that was not before,
/// unless the flip is among it.
#[derive(Debug, thiserror::Error)]
#[error("write {done} of the plan failed, {what}")]
pub struct RunError {
    /// How many writes were done; the index of the one that failed.
    pub done: usize,
    /// The write that failed.
    pub what: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl RunError {
    /// The table is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
    }
}

/// A program could not be attached to, or detached from, an interface.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} interface {ifindex}")]
pub struct AttachError {
    /// What was tried.
    pub step: &'static str,
    /// Index of the interface.
    pub ifindex: u32,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl AttachError {
    /// The interface is not there any more.
    pub fn is_gone(&self) -> bool {
        self.source.raw_os_error() == Some(libc::ENODEV)
    }
}

/// Running connections could not be taken over, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// nf_conntrack does not answer.
    #[error("nf_conntrack does not list its connections")]
    List(#[source] io::Error),
    /// The table of connections does not take them.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The watch on interfaces ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No netlink socket.
    #[error("cannot open a route netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("the kernel refuses to list {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection to the kernel ended.
    #[error("the route netlink connection ended")]
    Closed,
}

/// A test run could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot test-run the program {program}")]
pub struct TestRunError {
    /// Name of the program.
    pub program: &'static str,
    /// Why not.
    #[source]
    pub source: Box<aya::programs::ProgramError>,
}
