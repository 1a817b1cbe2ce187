//! The driver and the floors, loaded, and the table through which the driver reaches every program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, ProgramArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use cellwall_abi::tables;
use rustix::time::{ClockId, clock_gettime};
use zerocopy::{Immutable, IntoBytes};

use crate::drive::Drive;
use crate::objects::peer4;
use crate::rows::{Rows, clear};

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CELLWALL_FLOORS"));

/// A program that the driver can hand packets to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Program {
    Empty,
    LeanEst,
    FirstLru,
    ParseHashLpm,
    ToPod,
    FromPod,
    FromNode,
    /// `to_pod` of another build of the object, by its place on the command line.
    Other(u8),
}

impl Program {
    const FLOORS: [Self; 4] = [Self::Empty, Self::LeanEst, Self::FirstLru, Self::ParseHashLpm];

    /// Its name in its object.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::LeanEst => "lean_est",
            Self::FirstLru => "first_lru",
            Self::ParseHashLpm => "parse_hash_lpm",
            Self::ToPod => "to_pod",
            Self::FromPod => "from_pod",
            Self::FromNode => "from_node",
            Self::Other(_) => "to_pod, another build",
        }
    }

    /// Its place in the driver's table.
    pub(crate) const fn index(self) -> u32 {
        match self {
            Self::Empty => 0,
            Self::LeanEst => 1,
            Self::FirstLru => 2,
            Self::ParseHashLpm => 3,
            Self::ToPod => 4,
            Self::FromPod => 5,
            Self::FromNode => 6,
            Self::Other(number) => 7 + number as u32,
        }
    }
}

/// Head of `struct __sk_buff` as a test run takes it.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct SkBuff {
    pub(crate) unused: [u32; 9],
    pub(crate) ingress_ifindex: u32,
    pub(crate) ifindex: u32,
}

/// Key of a floor's tables, as the floors make it of a packet.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct FloorFlow {
    pub(crate) source: u32,
    pub(crate) destination: u32,
    pub(crate) ports: u32,
    pub(crate) ifindex: u32,
    pub(crate) protocol: u32,
}

impl FloorFlow {
    pub(crate) fn bytes(self) -> [u8; 20] {
        zerocopy::transmute!(self)
    }
}

/// A frame that the driver completes, and where it is seen.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_v6: bool,
    pub(crate) ifindex: u32,
    pub(crate) ingress_ifindex: u32,
}

/// The loaded object.
pub(crate) struct Driver {
    object: Ebpf,
    settings: Array<MapData, [u8; size_of::<Drive>()]>,
    /// The kernel empties it when nobody holds it.
    programs: ProgramArray<MapData>,
    first: Rows<20, 8>,
    flows: Rows<20, 8>,
    rules: LpmTrie<MapData, [u8; 4], u32>,
    listed: u32,
}

impl Driver {
    /// Loads the floors, and takes the shipped programs from their pins.
    pub(crate) fn load(pins: &Path) -> Result<Self> {
        let mut object = EbpfLoader::new().load(OBJECT).context("the floors cannot be loaded")?;
        let mut programs: ProgramArray<_> = map(&mut object, "PROGRAMS")?.try_into()?;
        for floor in Program::FLOORS {
            let program = program(&mut object, floor.name())?;
            program.load()?;
            programs.set(floor.index(), program.fd()?, 0)?;
        }
        for name in DRIVERS {
            program(&mut object, name)?.load()?;
        }
        for shipped in [Program::ToPod, Program::FromPod, Program::FromNode] {
            let program = SchedClassifier::from_pin(pinned(pins, shipped)?)?;
            programs.set(shipped.index(), program.fd()?, 0)?;
        }
        Ok(Self {
            settings: map(&mut object, "DRIVE")?.try_into()?,
            first: map(&mut object, "FIRST")?.try_into()?,
            flows: map(&mut object, "FLOWS")?.try_into()?,
            rules: map(&mut object, "RULES")?.try_into()?,
            programs,
            object,
            listed: 0,
        })
    }

    /// Loads another build of the shipped object onto the same tables.
    pub(crate) fn add(&mut self, number: u8, object: &Path, pins: &Path) -> Result<()> {
        let paths: Vec<_> =
            tables::ALL.iter().map(|table| (table.name, pins.join("maps").join(table.name))).collect();
        let mut loader = EbpfLoader::new();
        for (name, path) in &paths {
            loader.map_pin_path(name, path);
        }
        let mut object = loader.load_file(object).with_context(|| object.display().to_string())?;
        let program = program(&mut object, "to_pod")?;
        program.load()?;
        Ok(self.programs.set(Program::Other(number).index(), program.fd()?, 0)?)
    }

    /// Lists the first peers in the floors' table, and no others.
    pub(crate) fn list(&mut self, peers: u32) -> Result<()> {
        let key = |number| Key::new(32, peer4(number).octets());
        for number in peers..self.listed {
            self.rules.remove(&key(number))?;
        }
        for number in self.listed..peers {
            self.rules.insert(&key(number), 1, 0)?;
        }
        self.listed = peers;
        Ok(())
    }

    /// Forgets what `first_lru` added.
    pub(crate) fn forget_first(&mut self) -> Result<usize> {
        clear(&mut self.first)
    }

    /// Makes the connections of the floors those of this series, and no others.
    pub(crate) fn connect(&mut self, template: &Template, drive: &Drive) -> Result<()> {
        clear(&mut self.flows)?;
        let word = |at: usize| -> [u8; 4] { template.bytes[at..at + 4].try_into().expect("four bytes") };
        for flow in 0..drive.flows {
            let tuple = drive.tuple(flow);
            let peer = (0x0a00_0000 | tuple.peer).to_be();
            let (client, server) =
                (u32::from(tuple.client_port.to_be()), u32::from(tuple.server_port.to_be()));
            let from_client = drive.to_pod == drive.opened_by_peer;
            let (source, destination) = if drive.to_pod == 1 {
                (peer, u32::from_ne_bytes(word(30)))
            } else {
                (u32::from_ne_bytes(word(26)), peer)
            };
            let key = FloorFlow {
                source,
                destination,
                ports: if from_client { client << 16 | server } else { server << 16 | client },
                ifindex: template.ifindex,
                protocol: 6,
            };
            self.flows.insert(key.bytes(), [0; 8], 0)?;
        }
        Ok(())
    }

    /// Sets the next series.
    pub(crate) fn set(&mut self, drive: &Drive) -> Result<()> {
        let bytes: [u8; size_of::<Drive>()] = zerocopy::transmute!(*drive);
        Ok(self.settings.set(0, bytes, 0)?)
    }

    /// Sends so many packets of the series; how long this thread worked, and what the last one was told.
    pub(crate) fn run(&mut self, template: &Template, packets: u32) -> Result<(Duration, i32)> {
        let context = template.context();
        let driver = program(&mut self.object, DRIVERS[usize::from(template.is_v6)])?;
        let options = TestRunOptions {
            data_in: Some(&template.bytes),
            ctx_in: Some(context.as_bytes()),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let start = worked();
        let result = driver.test_run(options)?;
        let took = worked().saturating_sub(start);
        let verdict = result.return_value.cast_signed();
        ensure!(verdict != BROKEN, "the driver could not do its work");
        Ok((took, verdict))
    }
}

/// What the driver returns when it could not do its work.
const BROKEN: i32 = 99;
const DRIVERS: [&str; 2] = ["drive4", "drive6"];

/// How long this thread has been on a CPU: what others did meanwhile does not count.
pub(crate) fn worked() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

pub(crate) fn map(object: &mut Ebpf, name: &str) -> Result<Map> {
    object.take_map(name).with_context(|| format!("the object has no {name}"))
}

pub(crate) fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = object.program_mut(name).with_context(|| format!("the object has no {name}"))?;
    Ok(program.try_into()?)
}

/// Where a shipped program is pinned: under the digest of its object, the only one in a fresh file system.
pub(crate) fn pinned(pins: &Path, program: Program) -> Result<PathBuf> {
    let folder = std::fs::read_dir(pins.join("progs"))?.next().context("no program is pinned")??;
    Ok(folder.path().join(program.name()))
}
