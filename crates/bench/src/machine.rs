//! Where and when a run was.

use std::fs;

use rustix::system::uname;
use serde::Serialize;

/// The machine, as far as results depend on it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    memory_gib: u64,
    date: String,
    command: String,
    load_before: String,
    load_after: String,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn load() -> String {
    read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

impl Machine {
    /// As it is now.
    pub(crate) fn now(command: &str) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
        };
        let memory = read("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let virtual_machine = if field("flags").contains("hypervisor") { ", a virtual machine" } else { "" };
        let date = std::process::Command::new("date").args(["-u", "+%d %b %Y %H:%M UTC"]).output();
        Self {
            kernel: uname().release().to_string_lossy().into_owned(),
            cpu: format!("{}{virtual_machine}", field("model name")),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib >> 20,
            date: date.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default(),
            command: command.to_owned(),
            load_before: load(),
            load_after: String::new(),
        }
    }

    /// Notes how loaded the machine was at the end.
    pub(crate) fn ended(&mut self) {
        self.load_after = load();
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "- {}, `{}`\n- Linux {}, {} CPUs of {}, {} GiB\n- Test runs, and what grows, with CAP_BPF, CAP_NET_ADMIN \
             and CAP_PERFMON alone, as shipped; what goes over wires with all rights, which making them takes. Every time is of \
             the measuring thread's own CPU clock\n- Load average {} before, {} after: where it is above 1 others worked on the same CPUs and caches\n\n",
            self.date,
            self.command,
            self.kernel,
            self.cpus,
            self.cpu,
            self.memory_gib,
            self.load_before,
            self.load_after
        )
    }
}
