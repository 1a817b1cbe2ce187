//! Address blocks, read as the API server once read them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Reads a CIDR of an object that may have been stored before validation was strict (S57): leading zeros are
/// decimal, host bits are masked, and an IPv4-mapped IPv6 block of at least 96 bits is the IPv4 block.
pub(crate) fn parse(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = decimal(length)?;
    let net = match parse_ipv4(address) {
        Some(address) => IpNet::V4(Ipv4Net::new(address, length).ok()?),
        None => IpNet::V6(Ipv6Net::new(address.parse::<Ipv6Addr>().ok()?, length).ok()?),
    };
    Some(unmap(net.trunc()))
}

fn unmap(net: IpNet) -> IpNet {
    match (net.addr(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V6(address), Some(length)) => match address.to_ipv4_mapped() {
            Some(address) => Ipv4Net::new(address, length).map_or(net, IpNet::V4),
            None => net,
        },
        _ => net,
    }
}

fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let octets = text.split('.').map(decimal).collect::<Option<Vec<u8>>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

/// Digits only, however many of them are leading zeros.
fn decimal(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match text.trim_start_matches('0') {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}
