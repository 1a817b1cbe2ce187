//! What the tables cost.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use cellwall_abi::tables;

use crate::error::TableError;
use crate::settings::Settings;
use crate::sys;
use crate::tables::failed;

/// Bytes that the kernel has set aside for all pinned tables, at their capacities. They count as memory of the
/// control group whose process made them.
pub fn memory(settings: &Settings) -> Result<u64, TableError> {
    let folder = settings.folder().join("maps");
    let mut sum = 0;
    for table in tables::ALL {
        let fd = sys::open_pinned(&folder.join(table.name)).map_err(failed("open", table.name))?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
        let bytes = info.and_then(|info| locked(&info).ok_or_else(|| io::Error::other("it names no memory")));
        sum += bytes.map_err(failed("read the size of", table.name))?;
    }
    Ok(sum)
}

/// The value of `memlock` in what the kernel says of a descriptor of a map.
fn locked(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::locked;

    #[test]
    fn the_kernel_names_the_memory_of_a_map() {
        assert_eq!(locked("pos:\t0\nmap_type:\t2\nmemlock:\t4096\nmap_id:\t7\n"), Some(4096));
        assert_eq!(locked("pos:\t0\n"), None);
    }
}
