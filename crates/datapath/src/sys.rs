//! bpf(2), where aya has no words for it: single and batched access to tables of any plain type, links by
//! interface index, and what the kernel says about an object.
//!
//! Nothing here decides anything, and nothing here needs more than CAP_BPF and CAP_NET_ADMIN: the commands that
//! turn an id into a descriptor want CAP_SYS_ADMIN and are not used.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const MAP_DELETE_BATCH: u32 = 27;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const LINK_DETACH: u32 = 34;

/// Insert or replace.
pub(crate) const ANY: u64 = 0;
/// Insert; EEXIST when the key is there.
pub(crate) const NOEXIST: u64 = 1;

const F_BEFORE: u32 = 1 << 3;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Batch {
    start: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Pinned {
    path: u64,
    fd: u32,
    flags: u32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct InfoRequest {
    fd: u32,
    length: u32,
    info: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkCreate {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

/// Head of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// Head of `struct bpf_prog_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ProgramInfo {
    kind: u32,
    pub(crate) id: u32,
    tag: [u8; 8],
    pub(crate) jited_bytes: u32,
    pub(crate) translated_bytes: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    map_ids: u64,
}

/// Head of `struct bpf_link_info` with its tcx part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct LinkInfo {
    kind: u32,
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    pad: u32,
    /// 0 once the interface is gone.
    pub(crate) ifindex: u32,
    pub(crate) attach_type: u32,
}

/// `BPF_TCX_INGRESS`.
pub(crate) const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
pub(crate) const TCX_EGRESS: u32 = 47;

/// `attr` is one of the structs above: its pointers are to memory that outlives the call and is as large as the
/// kernel takes it to be, which each caller in this file argues.
fn bpf<A: IntoBytes + Immutable>(command: u32, attr: &mut A) -> io::Result<u32> {
    // JUSTIFICATION: libc has no wrapper for bpf(2), and aya keeps its own private.
    // SAFETY: the kernel reads and writes `size_of::<A>()` bytes at `attr`; for the rest see above.
    #[expect(unsafe_code, reason = "bpf(2)")]
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn fd_of(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    std::ptr::from_mut(of).cast::<u8>() as u64
}

fn owned(fd: u32) -> OwnedFd {
    let fd = i32::try_from(fd).expect("the kernel returns an int");
    // JUSTIFICATION: the syscall returns a plain number.
    // SAFETY: the kernel has just opened it for us and nobody else knows it.
    #[expect(unsafe_code, reason = "bpf(2) returns a descriptor")]
    unsafe {
        OwnedFd::from_raw_fd(fd)
    }
}

/// One row; `None` when the key is not there. `value` must be as large as the table's value (for a table per CPU:
/// 8-byte aligned and once per possible CPU).
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<Option<()>> {
    let mut attr =
        Elem { map_fd: fd_of(map), pad: 0, key: address(key), value: address_mut(value), flags: 0 };
    match bpf(MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one row.
pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let mut attr = Elem { map_fd: fd_of(map), pad: 0, key: address(key), value: address(value), flags };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Deletes one row; true when it was there.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attr = Elem { map_fd: fd_of(map), pad: 0, key: address(key), value: 0, flags: 0 };
    match bpf(MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Inserts or replaces `count` rows that stand one after the other. Returns how many were written, and why not
/// more. (The kernel refuses `BPF_NOEXIST` for a batch.)
pub(crate) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> (u32, io::Result<()>) {
    let mut attr = Batch {
        start: 0,
        next: 0,
        keys: address(keys),
        values: address(values),
        count,
        map_fd: fd_of(map),
        elem_flags: ANY,
        flags: 0,
    };
    let result = bpf(MAP_UPDATE_BATCH, &mut attr).map(drop);
    (done(&attr, count, &result), result)
}

/// Deletes `count` keys that stand one after the other. Returns how many were deleted, and why not more; ENOENT
/// is the answer to a key that is not there.
pub(crate) fn delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> (u32, io::Result<()>) {
    let mut attr = Batch {
        start: 0,
        next: 0,
        keys: address(keys),
        values: 0,
        count,
        map_fd: fd_of(map),
        elem_flags: 0,
        flags: 0,
    };
    let result = bpf(MAP_DELETE_BATCH, &mut attr).map(drop);
    (done(&attr, count, &result), result)
}

/// A batch that the kernel refused before it began leaves `count` as it was.
fn done(attr: &Batch, asked: u32, result: &io::Result<()>) -> u32 {
    match result {
        Ok(()) => attr.count,
        Err(_) if attr.count < asked => attr.count,
        Err(_) => 0,
    }
}

/// Where a walk stands: the kernel writes a bucket number or a key here. No table of ours has a longer key.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    at: [u64; 8],
    started: bool,
}

impl Cursor {
    /// Before the first row. `key_size` is the table's.
    pub(crate) fn start(key_size: usize) -> Self {
        assert!(key_size <= size_of::<[u64; 8]>(), "a longer key needs a longer cursor");
        Self { at: [0; 8], started: false }
    }
}

/// Reads up to `count` rows behind `cursor` into `keys` and `values`, which have room for them. Returns how many,
/// and whether there are more. ENOSPC: one bucket holds more than `count`.
pub(crate) fn lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<(u32, bool)> {
    let before = cursor.at;
    let mut attr = Batch {
        start: if cursor.started { address(&before) } else { 0 },
        next: address_mut(&mut cursor.at),
        keys: address_mut(keys),
        values: address_mut(values),
        count,
        map_fd: fd_of(map),
        elem_flags: 0,
        flags: 0,
    };
    let more = match bpf(MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
        Err(error) => return Err(error),
    };
    cursor.started = true;
    Ok((attr.count, more))
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Opens what is pinned at `path`.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Pinned { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    bpf(OBJ_GET, &mut attr).map(owned)
}

/// Pins a map, program or link at `path`.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Pinned { path: path.as_ptr() as u64, fd: fd_of(object), flags: 0 };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

fn info<T: IntoBytes + Immutable + FromBytes + KnownLayout>(
    object: BorrowedFd<'_>,
    info: &mut T,
) -> io::Result<()> {
    let length = u32::try_from(size_of::<T>()).expect("a small struct");
    let mut attr = InfoRequest { fd: fd_of(object), length, info: address_mut(info) };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// What the kernel says about a map.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut answer = MapInfo::default();
    info(map, &mut answer).map(|()| answer)
}

/// What the kernel says about a program, and the ids of the maps it uses.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<(ProgramInfo, Vec<u32>)> {
    let mut ids = [0_u32; 64];
    let mut answer = ProgramInfo { map_count: 64, map_ids: address_mut(&mut ids), ..ProgramInfo::default() };
    info(program, &mut answer)?;
    Ok((answer, ids[..answer.map_count.min(64) as usize].to_vec()))
}

/// What the kernel says about a link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut answer = LinkInfo::default();
    info(link, &mut answer).map(|()| answer)
}

/// Attaches a classifier in front of all others of an interface.
pub(crate) fn tcx_attach(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        program_fd: fd_of(program),
        ifindex,
        attach_type,
        flags: F_BEFORE,
        relative_fd: 0,
        pad: 0,
        expected_revision: 0,
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// Replaces the program of a link in place: every packet sees the old one or the new one.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_UPDATE, &mut [fd_of(link), fd_of(program), 0, 0]).map(drop)
}

/// Detaches a link, pinned or not.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut [fd_of(link)]).map(drop)
}

/// Ids of the programs at a tcx hook, first to run first.
pub(crate) fn tcx_programs(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let mut attr = Query {
        ifindex,
        attach_type,
        flags: 0,
        attach_flags: 0,
        program_ids: address_mut(&mut ids),
        count: 64,
        pad: 0,
        program_flags: 0,
        link_ids: 0,
        link_flags: 0,
        revision: 0,
    };
    match bpf(PROG_QUERY, &mut attr) {
        Ok(_) => Ok(ids[..attr.count.min(64) as usize].to_vec()),
        // Nothing is attached there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// An array of one `u32`, or of one map of the kind of `inner`.
pub(crate) fn create_array(inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let kind = if inner.is_some() { MAP_TYPE_ARRAY_OF_MAPS } else { MAP_TYPE_ARRAY };
    // type, key size, value size, max entries, flags, inner map
    bpf(MAP_CREATE, &mut [kind, 4, 4, 1, 0, inner.map_or(0, fd_of)]).map(owned)
}

/// Puts `inner` into the only element of an array of maps; returns after a grace period.
pub(crate) fn swap_inner(outer: &OwnedFd, inner: &OwnedFd) -> io::Result<()> {
    update(outer.as_fd(), &[0; 4], &inner.as_raw_fd().to_ne_bytes(), ANY)
}
