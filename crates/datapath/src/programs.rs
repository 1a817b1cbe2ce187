//! The classifiers: loaded once for each object, pinned, found again.
//!
//! The pins stand in a folder named after the digest of the object. When it is there and its programs use the
//! tables that are pinned, they are what this binary would load: nothing is loaded and nothing is written.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::hash::Hasher;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::programs::{ProgramFd, SchedClassifier};
use cellwall_abi::Direction;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::error::OpenError;
use crate::pins::{self, Pins, file};
use crate::settings::Settings;
use crate::sys;
use crate::tables;

/// The kernel object, as the build script left it.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cellwall"));

/// Names of the programs, by [`Hook`], in the object and as pins.
pub(crate) const NAMES: [&str; 3] = ["to_pod", "from_pod", "from_node"];

/// Where a program is: on which side of which interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// What enters a pod, at tc egress of the host side of its interface.
    ToPod,
    /// What leaves a pod, at tc ingress of it.
    FromPod,
    /// What leaves by another interface of the node, at tc egress.
    FromNode,
}

impl Hook {
    pub(crate) const ALL: [Self; 3] = [Self::ToPod, Self::FromPod, Self::FromNode];
    /// Those at an interface of a pod.
    pub(crate) const POD: &[Self] = &[Self::ToPod, Self::FromPod];
    /// That at any other.
    pub(crate) const NODE: &[Self] = &[Self::FromNode];

    /// The hook of a pod for packets of a direction.
    pub(crate) const fn of_pod(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::ToPod,
            Direction::Egress => Self::FromPod,
        }
    }

    /// At tc egress of the interface; else at tc ingress.
    pub(crate) const fn is_at_egress(self) -> bool {
        !matches!(self, Self::FromPod)
    }

    /// What stands in names of pins.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ToPod => "ingress",
            Self::FromPod => "egress",
            Self::FromNode => "node",
        }
    }
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) id: u32,
    pub(crate) program: SchedClassifier,
}

impl Loaded {
    /// Its descriptor.
    pub(crate) fn fd(&self) -> &ProgramFd {
        self.program.fd().expect("it was taken from a pin")
    }
}

/// The programs, by [`Hook`] as a number.
pub(crate) type Programs = [Loaded; 3];

/// Takes the pinned programs, or loads and pins them together with the tables they need.
pub(crate) fn open(settings: &Settings, pins: &Pins) -> Result<Programs, OpenError> {
    let object = aya_obj::Object::parse(OBJECT).map_err(|error| OpenError::Object(error.into()))?;
    let map_ids = tables::check(&object, settings, &pins.maps)?;
    let folder = pins.programs.join(digest(OBJECT));
    if let Some(map_ids) = map_ids
        && let Some(programs) = pinned(&folder, &map_ids)?
    {
        return Ok(programs);
    }
    let names: Vec<String> = object.maps.keys().cloned().collect();
    load(settings, pins, &names, &folder)?;
    again(pins)
}

/// The programs of this object, from their pins.
pub(crate) fn again(pins: &Pins) -> Result<Programs, OpenError> {
    let folder = pins.programs.join(digest(OBJECT));
    Ok([take(&folder, 0)?, take(&folder, 1)?, take(&folder, 2)?])
}

fn digest(object: &[u8]) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(object);
    format!("{:032x}", hasher.finish128().as_u128())
}

fn take(folder: &Path, index: usize) -> Result<Loaded, OpenError> {
    let path = folder.join(NAMES[index]);
    let fd = sys::open_pinned(&path).map_err(file("open", &path))?;
    let (info, _) = sys::program_info(fd.as_fd()).map_err(file("look at", &path))?;
    let program = SchedClassifier::from_pin(&path)
        .map_err(|source| OpenError::Program { name: NAMES[index], source: Box::new(source) })?;
    Ok(Loaded { id: info.id, program })
}

fn pinned(folder: &Path, map_ids: &[u32]) -> Result<Option<Programs>, OpenError> {
    for name in NAMES {
        let path = folder.join(name);
        let fd = match sys::open_pinned(&path) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("open", &path)(error)),
        };
        let (_, uses) = sys::program_info(fd.as_fd()).map_err(file("look at", &path))?;
        if !uses.iter().all(|id| map_ids.contains(id)) {
            return Ok(None);
        }
    }
    Ok(Some([take(folder, 0)?, take(folder, 1)?, take(folder, 2)?]))
}

/// Loads the object; tables that are pinned are used, others are made and pinned.
fn load(settings: &Settings, pins: &Pins, names: &[String], folder: &Path) -> Result<(), OpenError> {
    let paths: Vec<PathBuf> = names.iter().map(|name| pins.maps.join(name)).collect();
    let mut loader = EbpfLoader::new();
    for (name, path) in names.iter().zip(&paths) {
        loader.map_pin_path(name, path.as_path());
        if let Some(capacity) = settings.capacity(name) {
            loader.map_max_entries(name, capacity);
        }
    }
    let mut object = loader.load(OBJECT).map_err(|source| OpenError::Load(Box::new(source)))?;
    if !folder.is_dir() {
        DirBuilder::new().mode(0o700).create(folder).map_err(file("make", folder))?;
    }
    for name in NAMES {
        let refused = |source| OpenError::Program { name, source: Box::new(source) };
        let program: &mut SchedClassifier =
            object.program_mut(name).expect("the object has all programs").try_into().map_err(refused)?;
        program.load().map_err(refused)?;
        let path = folder.join(name);
        // Left by a load that ended half-way, or of programs whose tables are gone.
        pins::remove(&path).map_err(file("remove", &path))?;
        let fd = program.fd().map_err(refused)?;
        sys::pin(fd.as_fd(), &path).map_err(file("pin", &path))?;
    }
    Ok(())
}

/// Removes the pins of programs that no link runs any more.
pub(crate) fn remove_others(pins: &Pins) -> Result<(), OpenError> {
    let own = digest(OBJECT);
    for name in pins::names(&pins.programs).map_err(file("list", &pins.programs))? {
        if name == own {
            continue;
        }
        let folder = pins.programs.join(name);
        for path in NAMES.iter().map(|name| folder.join(name)).chain([folder.clone()]) {
            pins::remove(&path).map_err(file("remove", &path))?;
        }
    }
    Ok(())
}

/// The program of a hook.
pub(crate) const fn of(programs: &Programs, hook: Hook) -> &Loaded {
    &programs[hook as usize]
}

/// A program that is pinned, of this object or of another.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) id: u32,
    /// Ids of the tables that it uses.
    pub(crate) tables: Vec<u32>,
}

/// All programs that are pinned: some link may still run them.
pub(crate) fn all_pinned(pins: &Pins) -> Result<Vec<Pinned>, OpenError> {
    let mut all = Vec::new();
    for folder in pins::names(&pins.programs).map_err(file("list", &pins.programs))? {
        for path in NAMES.map(|name| pins.programs.join(&folder).join(name)) {
            match sys::open_pinned(&path) {
                Ok(fd) => {
                    let (info, tables) = sys::program_info(fd.as_fd()).map_err(file("look at", &path))?;
                    all.push(Pinned { id: info.id, tables });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(file("open", &path)(error)),
            }
        }
    }
    Ok(all)
}

/// Ids of the tables that the programs use together.
pub(crate) fn tables_of(programs: &Programs) -> Result<BTreeSet<u32>, OpenError> {
    let mut ids = BTreeSet::new();
    for (loaded, name) in programs.iter().zip(NAMES) {
        let (_, tables) =
            sys::program_info(loaded.fd().as_fd()).map_err(file("look at the program", Path::new(name)))?;
        ids.extend(tables);
    }
    Ok(ids)
}
