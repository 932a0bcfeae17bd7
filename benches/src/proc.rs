//! What the operating system says of this process and of a store's files.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::engine::Result;

/// Bytes that this process has had fetched from block devices so far, through the page cache or past it, page faults
/// of mapped files included (`read_bytes` in `/proc/self/io`, see proc(5)). `None` where the system does not say.
pub fn device_bytes_read() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

/// Memory limit in bytes of the control group this process is in, the narrowest on the way to the root; `None` when
/// there is none, and then the page cache may grow to all of the machine's memory.
pub fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        for ancestor in Path::new(group.trim_start_matches('/')).ancestors() {
            let path = Path::new(root).join(ancestor).join(file);
            let limit = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
            limits.extend(limit);
        }
    }
    // Version 1 writes "no limit" as the largest multiple of the page size.
    limits.into_iter().min().filter(|&limit| limit < 1 << 62)
}

/// Memory of the machine in bytes, where the system says.
pub fn machine_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Bytes of all blocks allocated to the files under `dir`. A file that vanishes while we look is not counted.
pub fn allocated_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for path in files_under(dir)? {
        if let Ok(metadata) = std::fs::symlink_metadata(&path) {
            sum += metadata.blocks() * 512;
        }
    }
    Ok(sum)
}

/// All regular files under `dir`, at any depth.
pub fn files_under(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![dir.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
