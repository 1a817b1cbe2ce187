//! How many instructions a packet takes, and how many look-ups: run on a machine of our own, over the tables as they
//! stand in the kernel.

mod vm;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{self, MapData};
use cellwall_abi::{
    Addr6, Be32, ClassPair, Config, Conn, Counter, EndpointRecord, FlowKey4, FlowKey6, Live, PolicyEntry,
    PolicyKey, PortKey, PortValue, ServiceKey4, ServiceKey6, ServiceRecord,
};
use serde::Serialize;
use zerocopy::IntoBytes;

use crate::drive::Drive;
use crate::driver::{Program, SkBuff, Template};
use crate::rows;
use vm::{Code, Helpers, Memory, map_of};

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CELLWALL_OBJECT"));

/// Flows of a case that are run.
const FLOWS: u32 = 64;
/// Bytes of `struct __sk_buff`, and where the ends of the packet stand in it.
const CONTEXT_BYTES: usize = 192;
const DATA: usize = 76;

/// What packets of a case take, the one that takes most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Executed {
    pub(crate) instructions: u32,
    pub(crate) lookups: u32,
}

/// A row of a table, by its key.
type Read = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

/// The shipped programs and their tables.
pub(crate) struct Machine {
    code: HashMap<Program, Code>,
    tables: HashMap<&'static str, (usize, Read)>,
}

fn key<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("keys have the length of their table")
}

fn array<const V: usize>(map: maps::Map) -> Result<Read> {
    let map: maps::Array<MapData, [u8; V]> = map.try_into()?;
    Ok(Box::new(move |bytes| map.get(&u32::from_ne_bytes(key(bytes)), 0).ok().map(|value| value.to_vec())))
}

fn hash<const K: usize, const V: usize>(map: maps::Map) -> Result<Read> {
    let map: maps::HashMap<MapData, [u8; K], [u8; V]> = map.try_into()?;
    Ok(Box::new(move |bytes| map.get(&key(bytes), 0).ok().map(|value| value.to_vec())))
}

fn longest<const K: usize, const V: usize>(map: maps::Map) -> Result<Read> {
    let map: LpmTrie<MapData, [u8; K], [u8; V]> = map.try_into()?;
    Ok(Box::new(move |bytes| {
        let (length, data) = bytes.split_at(4);
        let key = Key::new(u32::from_ne_bytes(key(length)), key(data));
        map.get(&key, 0).ok().map(|value| value.to_vec())
    }))
}

macro_rules! tables {
    ($pins:ident: $($name:ident $open:ident<$($type:ty),*> key $key:expr;)*) => {
        HashMap::from([$((
            stringify!($name),
            ($key, $open::<$({ size_of::<$type>() }),*>(rows::open(&$pins.join("maps").join(stringify!($name)))?)?),
        )),*])
    };
}

impl Machine {
    /// Takes the tables from their pins.
    pub(crate) fn open(pins: &Path) -> Result<Self> {
        let mut tables = tables! { pins:
            LIVE array<Live> key 4;
            CONFIG array<Config> key 4;
            ENDPOINTS hash<u32, u32> key 4;
            RECORDS array<EndpointRecord> key 4;
            BUCKETS array<cellwall_abi::Bucket> key 4;
            SHARES array<cellwall_abi::Share> key 4;
            ADDRESSES4 hash<Be32, u32> key 4;
            ADDRESSES6 hash<Addr6, u32> key 16;
            CLASSES array<ClassPair> key 4;
            PREFIXES4 longest<Be32, ClassPair> key 8;
            PREFIXES6 longest<Addr6, ClassPair> key 20;
            POLICY hash<PolicyKey, PolicyEntry> key size_of::<PolicyKey>();
            PORTS longest<PortKey, PortValue> key 4 + size_of::<PortKey>();
            SERVICES4 hash<ServiceKey4, u32> key size_of::<ServiceKey4>();
            SERVICES6 hash<ServiceKey6, u32> key size_of::<ServiceKey6>();
            SERVICE_RECORDS array<ServiceRecord> key 4;
            FLOWS4 hash<FlowKey4, Conn> key size_of::<FlowKey4>();
            FLOWS6 hash<FlowKey6, Conn> key size_of::<FlowKey6>();
            PENDING4 hash<FlowKey4, Conn> key size_of::<FlowKey4>();
            PENDING6 hash<FlowKey6, Conn> key size_of::<FlowKey6>();
        };
        // What is counted is nobody's here.
        tables.insert("COUNTERS", (4, Box::new(|_| Some(vec![0; size_of::<Counter>()]))));
        let code = [Program::ToPod, Program::FromPod]
            .map(|program| Ok((program, Code::of(OBJECT, program.name())?)));
        Ok(Self { code: code.into_iter().collect::<Result<_>>()?, tables })
    }

    /// Runs the first flows of a series.
    pub(crate) fn run(
        &self,
        program: Program,
        template: &Template,
        drive: &Drive,
        verdict: i32,
    ) -> Result<Executed> {
        let code = self.code.get(&program).context("only shipped programs are counted")?;
        let mut most = Executed::default();
        for flow in 0..drive.flows.min(FLOWS) {
            let frame = template.frame(drive, flow);
            let mut memory = Memory::default();
            let mut context = vec![0; CONTEXT_BYTES];
            let length = u32::try_from(frame.len())?;
            let ether_type = u32::from(u16::from_ne_bytes(key(&frame[12..14])));
            let data = u32::try_from(memory.add(frame))?;
            context[..4].copy_from_slice(&length.to_ne_bytes());
            context[16..20].copy_from_slice(&ether_type.to_ne_bytes());
            let head = template.context();
            context[36..44].copy_from_slice(&head.as_bytes()[36..44]);
            context[DATA..DATA + 4].copy_from_slice(&data.to_ne_bytes());
            context[DATA + 4..DATA + 8].copy_from_slice(&(data + length).to_ne_bytes());
            let context = memory.add(context);
            let mut kernel = Kernel { tables: &self.tables, data: data.into(), lookups: 0 };
            let ran = code.run(context, &mut memory, &mut kernel)?;
            ensure!(ran.result == verdict, "flow {flow} was told {}, expected {verdict}", ran.result);
            most.instructions = most.instructions.max(ran.instructions);
            most.lookups = most.lookups.max(kernel.lookups);
        }
        Ok(most)
    }
}

/// The helpers that a packet without oddities needs. Nothing is written to the kernel's tables.
struct Kernel<'a> {
    tables: &'a HashMap<&'static str, (usize, Read)>,
    data: u64,
    lookups: u32,
}

impl Helpers for Kernel<'_> {
    fn call(&mut self, number: i32, a: [u64; 5], memory: &mut Memory, maps: &[String]) -> Result<u64> {
        match number {
            // bpf_map_lookup_elem
            1 => {
                let name = map_of(a[0], maps)?;
                let (length, read) =
                    self.tables.get(name).with_context(|| format!("{name} cannot be read"))?;
                self.lookups += 1;
                let row = read(memory.bytes(a[1], *length)?);
                Ok(row.map_or(0, |row| memory.add(row)))
            }
            // bpf_map_update_elem, bpf_ringbuf_submit: as if
            2 | 132 => Ok(0),
            // bpf_ktime_get_coarse_ns: later than any packet so far, so that each takes the way of the first of its tick
            160 => Ok(u64::from(cellwall_datapath::now_tick() + 2) << cellwall_abi::TICK_SHIFT),
            // bpf_skb_load_bytes
            26 => {
                let bytes = memory.bytes(self.data + a[1], a[3].try_into()?)?.to_vec();
                memory.bytes(a[2], bytes.len())?.copy_from_slice(&bytes);
                Ok(0)
            }
            // bpf_ringbuf_reserve
            131 => Ok(memory.add(vec![0; a[1].try_into()?])),
            _ => bail!("helper {number} is not there"),
        }
    }
}

impl Template {
    /// What a test run is told of a frame.
    pub(crate) fn context(&self) -> SkBuff {
        SkBuff { unused: [0; 9], ingress_ifindex: self.ingress_ifindex, ifindex: self.ifindex }
    }

    /// A flow's frame, as the driver makes it.
    fn frame(&self, drive: &Drive, flow: u32) -> Vec<u8> {
        let mut frame = self.bytes.clone();
        let tuple = drive.tuple(flow);
        let (source, destination, ports) = if self.is_v6 { (34, 50, 54) } else { (26, 30, 34) };
        let at = if drive.to_pod == 1 { source } else { destination };
        frame[at..at + 4].copy_from_slice(&(0x0a00_0000 | tuple.peer).to_be_bytes());
        let (client, server) = (tuple.client_port.to_be_bytes(), tuple.server_port.to_be_bytes());
        let pair = if drive.to_pod == drive.opened_by_peer { [client, server] } else { [server, client] };
        frame[ports..ports + 4].copy_from_slice(&pair.concat());
        frame[ports + 13] = u8::try_from(drive.flags).expect("flags are eight");
        frame
    }
}
