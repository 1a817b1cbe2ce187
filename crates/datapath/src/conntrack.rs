//! Connections that were there before the programs, taken over from nf_conntrack of this network namespace.
//!
//! What is taken over is never a permission: it has revision 0, older than the `since` of any record, so that its next
//! packet asks policy, in the direction in which nf_conntrack saw it open. What it adds is who opened it, which no
//! packet in the middle says, and without which the answers of a pod that may not open anything itself are dropped.
//!
//! Only answered connections of protocols with ports. A ping loses an answer at most; an unanswered connection is
//! opened by its next packet.
//!
//! nf_conntrack does not say whether a connection of this node's address was opened by the node or masqueraded by it,
//! so none is `CONN_OWN_NODE`. Where policy denies a connection that is the node's own, its next packet is dropped and
//! its entry with it; the one after that passes as the node's own, which is seen at the packet.

mod entry;
mod flow;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use cellwall_abi::{
    CONN_DEFERRED, CONN_ESTABLISHED, CONN_MIDFLOW, CONN_OPENED_BY_POD, CONN_REPLIED, Conn, RULE_NONE,
};

use crate::error::{ImportError, TableError};
use crate::netlink::{Body, Requests};
use crate::table::{Plain, Table};
use crate::tables::{Tables, failed};
use entry::Entry;
use flow::{Flow, Key, flows};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;
/// `struct nfgenmsg`: of all families, `NFNETLINK_V0`.
const HEAD: [u8; 4] = [0; 4];
const TCP: u8 = 6;

/// Adds the answered connections of the pods behind these addresses (address to interface index); how many. One that
/// is there already stays as it is. A full table takes no more, and that is no error: the rest is found by its packets.
pub(crate) fn import(tables: &Tables, pods: &BTreeMap<IpAddr, u32>, now: u32) -> Result<usize, ImportError> {
    let mut import = Import { tables, now, added: 0, failed: None };
    list(|entry| {
        for flow in flows(entry, pods) {
            import.add(&flow);
        }
    })
    .map_err(ImportError::List)?;
    import.failed.map_or(Ok(import.added), |error| Err(error.into()))
}

/// Walks all connections; what is not understood is left out. The table is not locked: one that comes or goes
/// meanwhile is seen or not.
fn list(mut see: impl FnMut(&Entry)) -> io::Result<()> {
    Requests::netfilter()?.walk(GET, &Body::new(&HEAD), |message| {
        if let Some(entry) = message.get(HEAD.len()..).and_then(Entry::read) {
            see(&entry);
        }
    })
}

struct Import<'a> {
    tables: &'a Tables,
    now: u32,
    added: usize,
    /// The first table that refused a row for another reason than that it is full.
    failed: Option<TableError>,
}

impl Import<'_> {
    fn add(&mut self, flow: &Flow) {
        let conn = conn(flow, self.now);
        let added = match flow.key {
            Key::V4(key) => insert(&self.tables.flows4, "FLOWS4", &key, &conn),
            Key::V6(key) => insert(&self.tables.flows6, "FLOWS6", &key, &conn),
        };
        match added {
            Ok(added) => self.added += usize::from(added),
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }
}

/// True when it was added: not when it is there, or the table is full.
fn insert<K: Plain>(
    table: &Table<K, Conn>,
    name: &'static str,
    key: &K,
    conn: &Conn,
) -> Result<bool, TableError> {
    match table.insert(key, conn) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::E2BIG)) => Ok(false),
        Err(error) => Err(failed("insert into", name)(error)),
    }
}

/// How long nobody has sent anything is not asked: the time of an idle connection starts anew, once.
fn conn(flow: &Flow, now: u32) -> Conn {
    Conn {
        revision: 0,
        seen: now,
        created: now,
        rule: RULE_NONE,
        state: CONN_REPLIED | CONN_ESTABLISHED,
        flags: if flow.opened_by_pod { CONN_OPENED_BY_POD } else { 0 }
            | if flow.protocol == TCP { CONN_MIDFLOW } else { 0 }
            | if flow.is_translated { CONN_DEFERRED } else { 0 },
        ..Conn::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_is_judged_before_it_admits_anything() {
        let flow = |opened_by_pod, protocol| Flow {
            key: Key::V4(cellwall_abi::FlowKey4::default()),
            protocol,
            opened_by_pod,
            is_translated: false,
        };
        let midflow = conn(&flow(true, TCP), 7);
        assert_eq!((midflow.revision, midflow.seen, midflow.created), (0, 7, 7));
        assert_eq!(midflow.flags, CONN_OPENED_BY_POD | CONN_MIDFLOW);
        assert_eq!(midflow.state, CONN_REPLIED | CONN_ESTABLISHED);
        assert!(midflow.mac.is_unknown(), "the programs fill it in when they judge it");
        assert_eq!(conn(&flow(false, 17), 7).flags, 0, "only TCP has a handshake to miss");
        let translated = Flow { is_translated: true, ..flow(true, 17) };
        assert_eq!(conn(&translated, 7).flags, CONN_OPENED_BY_POD | CONN_DEFERRED);
    }
}
