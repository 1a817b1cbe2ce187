//! What kernels have counted. Their counters lose nothing.

use crate::net::Host;

/// Datagrams and segments that a pod's kernel has got so far, whoever they were for.
pub fn received(host: Host<'_>) -> u64 {
    let (table, six) = host.namespace.run(|| {
        let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        (read("snmp").expect("a kernel with IPv4"), read("snmp6").expect("a kernel with IPv6"))
    });
    let six = |name: &str| {
        let value = six.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.expect("a counter of the kernel")
    };
    let udp6 = six("Udp6InDatagrams ") + six("Udp6NoPorts ") + six("Udp6InErrors ");
    // Segments are counted for both families together; of IPv4 everything counts.
    four(&table, "Tcp:", "InSegs") + four(&table, "Ip:", "InReceives") + udp6
}

/// A value of a table of two lines, names and numbers.
fn four(table: &str, group: &str, name: &str) -> u64 {
    let mut lines = table.lines().filter(|line| line.starts_with(group));
    let names = lines.next().expect("a line of names").split_whitespace();
    let values = lines.next().expect("a line of numbers").split_whitespace();
    let value = names.zip(values).find(|(found, _)| *found == name).and_then(|(_, value)| value.parse().ok());
    value.expect("a counter of the kernel")
}

/// Segments that a pod's kernel sent more than once.
pub fn sent_again(host: Host<'_>) -> u64 {
    let table = host.namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    four(&table.expect("a kernel with IPv4"), "Tcp:", "RetransSegs")
}

/// Packets that the machine's kernel has thrown away since it started, before any program saw them: a queue of a processor
/// was full.
pub fn never_seen() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("a kernel with a network");
    let second = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().filter_map(second).sum()
}
