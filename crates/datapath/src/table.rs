//! A table of the kernel with the types of its keys and values.
//!
//! Keys and values are plain bytes without padding (zerocopy), and [`Table::open`] has compared their sizes with
//! the kernel's, so no call can make the kernel read or write past them.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::{self, Cursor};

/// `ENOTSUPP` of the kernel, which user space headers do not name.
const ENOTSUPP: i32 = 524;

/// Rows per batch: enough that the calls do not count, small enough that the buffers stay in the cache.
const CHUNK: usize = 2048;

/// What a key or value must be.
pub(crate) trait Plain: IntoBytes + FromBytes + Immutable + Copy + Default {}
impl<T: IntoBytes + FromBytes + Immutable + Copy + Default> Plain for T {}

/// A table of the kernel.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// Takes a descriptor of a map; EINVAL when its keys or values have another size.
    pub(crate) fn open(fd: OwnedFd) -> io::Result<Self> {
        let info = sys::map_info(fd.as_fd())?;
        if info.key_size as usize != size_of::<K>() || info.value_size as usize != size_of::<V>() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self { fd, types: PhantomData })
    }

    /// One row.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::default();
        let found = sys::lookup(self.fd.as_fd(), key.as_bytes(), value.as_mut_bytes())?;
        Ok(found.map(|()| value))
    }

    /// Inserts or replaces.
    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<()> {
        sys::update(self.fd.as_fd(), key.as_bytes(), value.as_bytes(), sys::ANY)
    }

    /// Inserts; EEXIST when the key is there.
    pub(crate) fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        sys::update(self.fd.as_fd(), key.as_bytes(), value.as_bytes(), sys::NOEXIST)
    }

    /// Deletes; true when it was there.
    pub(crate) fn delete(&self, key: &K) -> io::Result<bool> {
        sys::delete(self.fd.as_fd(), key.as_bytes())
    }

    /// Inserts or replaces in order. Returns how many were written, and why not more.
    pub(crate) fn put_all(&self, rows: &[(K, V)]) -> (usize, io::Result<()>) {
        let mut written = 0;
        for chunk in rows.chunks(CHUNK) {
            let (keys, values): (Vec<K>, Vec<V>) = chunk.iter().copied().unzip();
            let (count, result) =
                sys::update_batch(self.fd.as_fd(), keys.as_bytes(), values.as_bytes(), len(chunk));
            written += count as usize;
            if let Err(error) = result {
                return if unsupported(&error) {
                    self.put_each(rows, written)
                } else {
                    (written, Err(error))
                };
            }
        }
        (written, Ok(()))
    }

    fn put_each(&self, rows: &[(K, V)], from: usize) -> (usize, io::Result<()>) {
        for (done, (key, value)) in rows.iter().enumerate().skip(from) {
            if let Err(error) = self.put(key, value) {
                return (done, Err(error));
            }
        }
        (rows.len(), Ok(()))
    }

    /// Deletes in order; a key that is not there counts as done. Returns how many are done, how many of them
    /// were there, and why not more.
    pub(crate) fn delete_all(&self, keys: &[K]) -> (usize, usize, io::Result<()>) {
        let (mut done, mut found) = (0, 0);
        while done < keys.len() {
            let chunk = &keys[done..keys.len().min(done + CHUNK)];
            let (count, result) = sys::delete_batch(self.fd.as_fd(), chunk.as_bytes(), len(chunk));
            done += count as usize;
            found += count as usize;
            match result {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) || unsupported(&error) => {
                    match self.delete(&keys[done]) {
                        Ok(was_there) => found += usize::from(was_there),
                        Err(error) => return (done, found, Err(error)),
                    }
                    done += 1;
                }
                Err(error) => return (done, found, Err(error)),
            }
        }
        (done, found, Ok(()))
    }

    /// Walks all rows. A row that others insert or delete meanwhile is seen or not.
    pub(crate) fn for_each(&self, mut see: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut room = CHUNK;
        let mut keys = vec![K::default(); room];
        let mut values = vec![V::default(); room];
        let mut cursor = Cursor::start(size_of::<K>());
        loop {
            let before = cursor;
            let read = sys::lookup_batch(
                self.fd.as_fd(),
                &mut cursor,
                keys.as_mut_bytes(),
                values.as_mut_bytes(),
                u32::try_from(room).expect("a batch is small"),
            );
            let (count, more) = match read {
                Ok(read) => read,
                // One bucket holds more rows than the buffers: hashes of keys that somebody chose.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < 1 << 20 => {
                    room *= 4;
                    keys.resize(room, K::default());
                    values.resize(room, V::default());
                    cursor = before;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (key, value) in keys.iter().zip(&values).take(count as usize) {
                see(key, value);
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Walks the first `count` elements of an array, or all where there are fewer.
    pub(crate) fn first(&self, count: u32, see: &mut impl FnMut(&K, &V)) -> io::Result<()> {
        let mut left = count;
        let mut keys = vec![K::default(); CHUNK.min(count as usize)];
        let mut values = vec![V::default(); keys.len()];
        let mut cursor = Cursor::start(size_of::<K>());
        while left > 0 {
            let ask = left.min(len(&keys));
            let (read, more) = sys::lookup_batch(
                self.fd.as_fd(),
                &mut cursor,
                keys.as_mut_bytes(),
                values.as_mut_bytes(),
                ask,
            )?;
            for (key, value) in keys.iter().zip(&values).take(read as usize) {
                see(key, value);
            }
            left -= read.min(left);
            if !more || read == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The kernel's answer to a batched read.
    pub(crate) fn try_batch(&self) -> io::Result<()> {
        let (mut key, mut value) = (K::default(), V::default());
        let mut cursor = Cursor::start(size_of::<K>());
        match sys::lookup_batch(self.fd.as_fd(), &mut cursor, key.as_mut_bytes(), value.as_mut_bytes(), 1) {
            // A bucket of several rows: the kernel knows batches.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Number of rows, by walking them.
    pub(crate) fn count(&self) -> io::Result<usize> {
        let mut count = 0;
        self.for_each(|_, _| count += 1)?;
        Ok(count)
    }
}

fn len<T>(chunk: &[T]) -> u32 {
    u32::try_from(chunk.len()).expect("a chunk is small")
}

/// The kernel has no batches for this kind of table.
fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP))
}
