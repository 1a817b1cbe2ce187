//! Parts of frames, right or wrong as asked.

use core::net::IpAddr;

use crate::objects::Rng;

/// Ports, of which policies of a test name some.
pub(super) const PORTS: [u16; 14] = [0, 1, 22, 53, 67, 79, 80, 85, 90, 91, 443, 4789, 8472, 65535];
/// Protocols with a header that is read, tunnels, and others.
pub(super) const PROTOCOLS: [u8; 24] =
    [6, 6, 6, 17, 17, 17, 132, 1, 58, 2, 4, 41, 47, 50, 51, 97, 115, 136, 33, 0, 59, 89, 253, 255];
/// Extension headers, the first five of which a kernel walks.
const EXTENSIONS: [u8; 8] = [0, 43, 60, 51, 44, 135, 139, 140];

pub(super) fn ports(rng: &mut Rng) -> (u16, u16) {
    let client = u16::try_from(40_000 + rng.below(64)).expect("a port");
    if rng.percent(90) { (client, *rng.pick(&PORTS)) } else { (*rng.pick(&PORTS), client) }
}

/// A transport header and something behind it. `quoted` is what an ICMP error is about.
pub(super) fn transport(rng: &mut Rng, protocol: u8, ports: (u16, u16), quoted: &[u8]) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    match protocol {
        6 => {
            let flags = *rng.pick(&[2, 2, 2, 2, 0x12, 0x10, 0x18, 0x11, 1, 4, 0x14, 0, 0x29, 3, 6, 0xc2]);
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xfa, 0, 0, 0, 0, 0]);
        }
        17 | 136 => bytes.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        132 => {
            let chunk = *rng.pick(&[1, 1, 2, 10, 11, 0, 6]);
            bytes.extend([
                0, 0, 0, 0, 0, 0, 0, 0, chunk, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1,
            ]);
        }
        1 | 58 => {
            let kinds: &[u8] = if protocol == 1 {
                &[8, 8, 0, 3, 11, 12, 5, 9, 10, 13]
            } else {
                &[128, 128, 129, 1, 2, 3, 4, 130, 131, 133, 134, 135, 136, 137, 139, 143]
            };
            let kind = *rng.pick(kinds);
            let id = ports.0.to_be_bytes();
            bytes = vec![kind, 0, 0, 0, id[0], id[1], 0, 1];
            bytes.extend_from_slice(quoted);
        }
        _ => bytes.extend([0; 16]),
    }
    bytes
}

/// Options of IPv4, of whole words; sometimes they lie.
pub(super) fn options4(rng: &mut Rng) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..rng.between(1, 4) {
        match rng.below(8) {
            0..3 => options.extend(vec![1; rng.between(1, 8)]),
            3 => options.extend([7, 7, 4, 0, 0, 0, 0]),
            4 => options.extend([68, 8, 5, 0, 0, 0, 0, 0]),
            5 => options.extend([*rng.pick(&[131, 137]), 7, 4, 10, 244, 0, 1]),
            6 => options
                .extend([*rng.pick(&[7, 68, 130, 148, 200]), u8::try_from(rng.below(12)).expect("a byte")]),
            _ => options.push(0),
        }
    }
    options.resize(options.len().div_ceil(4).min(10) * 4, 0);
    options
}

/// A chain of extension headers and what it leads to: the first kind, and the bytes. `fragment` is what a fragment
/// header says.
pub(super) fn chain(rng: &mut Rng, count: usize, last: u8, fragment: Option<[u8; 8]>) -> (u8, Vec<u8>) {
    let mut headers: Vec<(u8, Vec<u8>)> = rng.many(count, extension);
    if let Some(header) = fragment {
        let at = rng.below(headers.len() + 1);
        headers.insert(at, (44, header.to_vec()));
    }
    let mut next = last;
    let mut bytes = Vec::new();
    for (kind, mut header) in headers.into_iter().rev() {
        header[0] = next;
        header.extend(bytes);
        (next, bytes) = (kind, header);
    }
    (next, bytes)
}

fn extension(rng: &mut Rng) -> (u8, Vec<u8>) {
    let known = rng.percent(90);
    let kind = if known { EXTENSIONS[rng.below(4)] } else { *rng.pick(&EXTENSIONS) };
    let eights = rng.between(1, 3);
    let mut header = vec![0; 8 * eights];
    header[1] = u8::try_from(if kind == 51 { eights * 2 - 2 } else { eights - 1 }).expect("small");
    match kind {
        43 => {
            let routing: [u8; 2] = *rng.pick(&[[2, 0], [2, 0], [2, 0], [4, 0], [0, 0], [4, 1]]);
            header[2..4].copy_from_slice(&routing);
        }
        44 => header[1] = 0,
        _ => {}
    }
    if rng.percent(3) {
        header[1] = u8::try_from(rng.below(256)).expect("a byte");
    }
    (kind, header)
}

/// A header of IPv4, with a checksum.
pub(super) fn ipv4(
    ends: (IpAddr, IpAddr),
    (protocol, ttl): (u8, u8),
    id: [u8; 4],
    options: &[u8],
    length: usize,
) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let total = u16::try_from(words * 4 + length).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x40 | u8::try_from(words).expect("at most 15"), 0, total[0], total[1]];
    header.extend(id);
    header.extend([ttl, protocol, 0, 0]);
    header.extend(octets(ends.0));
    header.extend(octets(ends.1));
    header.extend(options);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// A header of IPv6.
pub(super) fn ipv6(ends: (IpAddr, IpAddr), next: u8, hops: u8, length: usize) -> Vec<u8> {
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, length[0], length[1], next, hops];
    header.extend(octets(ends.0));
    header.extend(octets(ends.1));
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
