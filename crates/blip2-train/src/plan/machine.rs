//! The memory of the machine at hand.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Bytes of main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MainMemory {
    /// That this process may use at all.
    pub total: usize,
    /// That it may still use: what the system could free counts, limits of control groups and of the shell
    /// (`ulimit -v`) are kept.
    pub free: usize,
}

impl MainMemory {
    /// As it is now.
    pub fn now() -> Self {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(memory);
        let mut found = Self {
            total: bytes(system.total_memory()),
            free: bytes(system.available_memory()),
        };
        if let Some(limits) = system.cgroup_limits() {
            found.limit(bytes(limits.total_memory), bytes(limits.free_memory));
        }
        if let Some((limit, used)) = address_space() {
            found.limit(limit, limit.saturating_sub(used));
        }
        found
    }

    fn limit(&mut self, total: usize, free: usize) {
        self.total = self.total.min(total);
        self.free = self.free.min(free);
    }
}

fn bytes(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The limit of the process's addresses and how many it has taken; Linux tells.
fn address_space() -> Option<(usize, usize)> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    let limit = line.split_whitespace().next()?.parse().ok()?;
    Some((limit, status("VmSize:")?))
}

/// The most bytes that this process has held at once; Linux tells.
pub fn peak_memory() -> Option<usize> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory_and_no_more_of_it_is_free_than_there_is() {
        let MainMemory { total, free } = MainMemory::now();
        assert!(0 < free && free <= total, "{free} of {total}");
    }
}
