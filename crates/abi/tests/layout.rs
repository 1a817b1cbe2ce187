//! What kernel and agent have agreed on, written down. A difference here is another ABI: raise `ABI_VERSION`, say how
//! connections migrate, and then `UPDATE_EXPECT=1 cargo test -p cellwall-abi`.

use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};

use cellwall_abi::{
    ABI_VERSION, Bucket, Chosen, ChosenKey4, ChosenKey6, ClassPair, Config, Conn, Counter, EndpointRecord,
    Event, FlowKey4, FlowKey6, Fragment, FragmentKey4, FragmentKey6, INLINE_INTERVALS, Interval, Live,
    PolicyEntry, PolicyKey, PortKey, PortValue, Reason, ServiceBackend, ServiceKey4, ServiceKey6,
    ServiceRecord, Share, TICK_SHIFT, tables,
};
use expect_test::expect_file;

macro_rules! layout {
    ($out:ident, $($type:ident { $($field:ident),* })*) => {$(
        let _ = writeln!($out, "{} {} bytes, aligned to {}", stringify!($type), size_of::<$type>(), align_of::<$type>());
        $(let _ = writeln!($out, "  {:4} {}", offset_of!($type, $field), stringify!($field));)*
    )*};
}

#[test]
fn the_layout_is_what_is_written_down() {
    let mut out =
        format!("ABI {ABI_VERSION}, tick 2^{TICK_SHIFT} ns, {INLINE_INTERVALS} intervals in an entry\n\n");
    layout! { out,
        Live {}
        ClassPair {}
        Config { secret, flags, abi_version, mark, pad }
        EndpointRecord { since, flags, midflow_until, image, address4, address6, mac, pad, ifindex, default }
        Bucket { refilled, unanswered, answers, fragments }
        Share { taken }
        PolicyKey { image, class }
        PolicyEntry { intervals, rest_rule, list, count, rest_action, some, pad }
        Interval { low, high, rule, protocol, action, pad }
        PortKey { list, pad, protocol, port }
        PortValue { rule, action, pad }
        FlowKey4 { ifindex, local, remote, local_port, remote_port, protocol, pad }
        FlowKey6 { ifindex, local, remote, local_port, remote_port, protocol, pad }
        Conn { revision, bytes, packets, seen, created, handshake_us, rule, mac, state, flags }
        ChosenKey4 { ifindex, address, port, protocol, pad }
        ChosenKey6 { ifindex, address, port, protocol, pad }
        Chosen { revision, rule, pad }
        FragmentKey4 { ifindex, source, destination, id, protocol, direction, stage, pad }
        FragmentKey6 { ifindex, source, destination, id, protocol, direction, stage, pad }
        Fragment { revision, rule, seen, action, pad }
        ServiceKey4 { address, port, protocol, pad }
        ServiceKey6 { address, port, protocol, pad }
        ServiceBackend { address, port, pad }
        ServiceRecord { flags, count, backends }
        Counter { packets, bytes }
        Event { time_ns, revision, ifindex, rule, source, destination, source_port, destination_port, protocol, direction, reason, flags }
    }
    out.push_str("\nreasons\n");
    for reason in Reason::ALL {
        let fate = if reason.is_drop() { "drop" } else { "pass" };
        let _ = writeln!(out, "  {:4} {fate} {}", *reason as u8, reason.name());
    }
    out.push_str("\ntables\n");
    for table in tables::ALL {
        let _ = writeln!(out, "  {:11} {}", table.name, table.capacity);
    }
    expect_file!["layout.txt"].assert_eq(&out);
}
