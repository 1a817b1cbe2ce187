//! Names and addresses of a cluster's nodes. Nodes are counted from 1.

/// Names and addresses of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub u8);

/// The node with the control plane.
pub const FIRST: Node = Node(1);

impl Node {
    /// All nodes of a cluster of so many.
    pub fn all(count: u8) -> impl Iterator<Item = Self> {
        (1..=count).map(Self)
    }

    /// Its name in Kubernetes.
    pub fn name(self) -> String {
        format!("node-{}", self.0)
    }

    /// Its IPv4 and IPv6 address.
    pub fn addresses(self) -> [String; 2] {
        let number = 10 + u16::from(self.0);
        [format!("172.30.0.{number}"), format!("fd00:30::{number}")]
    }

    /// What its pods have addresses from.
    pub fn pods(self) -> [String; 2] {
        let number = self.0 - 1;
        [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number:x}::/64")]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ADDRESS, ADDRESS6, NAME};
    use super::{FIRST, Node};

    #[test]
    fn the_first_node_is_where_the_constants_say() {
        assert_eq!(
            (FIRST.name().as_str(), FIRST.addresses()),
            (NAME, [ADDRESS, ADDRESS6].map(str::to_owned))
        );
    }

    #[test]
    fn no_two_nodes_share_an_address_or_a_range() {
        let all = || Node::all(99);
        let mut texts: Vec<String> =
            all().flat_map(|node| [node.addresses(), node.pods()]).flatten().collect();
        let count = texts.len();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), count);
    }
}
