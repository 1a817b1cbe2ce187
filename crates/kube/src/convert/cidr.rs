//! Addresses and CIDRs as old stored objects write them (S57): decimal with leading zeros, host bits set.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An IPv4 address in dotted decimals, leading zeros ignored (never octal), as Go's `net.ParseIP` read it before 1.17.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// A decimal number below 1000 of any number of digits; no sign, no spaces.
fn decimal(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    match digits.len() {
        0 => Some(0),
        1..=3 => digits.parse().ok(),
        _ => None,
    }
}

/// Parses an address. An IPv4-mapped IPv6 address stays IPv6: no packet of IPv4 carries it.
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    ipv4(text).map(IpAddr::V4).or_else(|| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

/// Parses a CIDR, masking host bits. The error completes the sentence "`text` ...".
pub fn block(text: &str) -> Result<IpNet, &'static str> {
    const NOT_A_CIDR: &str = "is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32";
    let (ip, prefix) = text.split_once('/').ok_or(NOT_A_CIDR)?;
    let ip = address(ip).ok_or(NOT_A_CIDR)?;
    let prefix = decimal(prefix).and_then(|p| u8::try_from(p).ok()).ok_or(NOT_A_CIDR)?;
    // What was stored before validation was strict was read by Go's net package, for which this is IPv4 (S57).
    let (ip, prefix) = match ip {
        IpAddr::V6(v6) if prefix >= 96 => {
            v6.to_ipv4_mapped().map_or((ip, prefix), |v4| (IpAddr::V4(v4), prefix - 96))
        }
        _ => (ip, prefix),
    };
    IpNet::new(ip, prefix).map(|net| net.trunc()).map_err(|_| NOT_A_CIDR)
}

#[cfg(test)]
mod tests {
    use super::{address, block};

    #[test]
    fn sloppy_cidrs_mean_what_old_api_servers_took_them_for() {
        let cases = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.7/24", "10.0.0.0/24"),
            ("010.000.001.009/032", "10.0.1.9/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("2001:db8::1/128", "2001:db8::1/128"),
            ("::ffff:10.0.0.0/95", "::fffe:0:0/95"),
            ("::ffff:10.0.0.7/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ];
        for (text, meaning) in cases {
            assert_eq!(block(text).expect(text).to_string(), meaning, "{text}");
        }
    }

    #[test]
    fn what_is_no_cidr_is_refused() {
        let cases = [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "0x0a.0.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/8/8",
            "::/129",
            "fe80::1%eth0/64",
            "1000000000000000000000.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "any",
        ];
        for text in cases {
            assert!(block(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_not_ipv4() {
        assert!(address("::ffff:10.0.0.1").expect("an address").is_ipv6());
    }
}
