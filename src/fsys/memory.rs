//! How much memory this process may still take.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// Bytes that this process may still take: what the kernel holds to be available, what is left to each control group
/// that it is in, and what is left of the limit on its address space, whichever is least. `None` if nothing tells.
pub fn available() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| field(&text, "MemAvailable:"));
    let group = read(Path::new("/proc/self/cgroup")).and_then(|text| left_to_groups(&text, &read));
    let used = read(Path::new("/proc/self/status")).and_then(|text| field(&text, "VmSize:")).unwrap_or(0);
    let limit = getrlimit(Resource::As).current.map(|limit| limit.saturating_sub(used));
    [machine, group, limit].into_iter().flatten().min()
}

/// The bytes of a line like `MemAvailable:  123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// What is left to the group that `/proc/self/cgroup` names, and to those above it. Both hierarchies are asked.
fn left_to_groups(text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", path, "memory.max", "memory.current")),
            of if of.split(',').any(|one| one == "memory") => {
                Some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes"))
            }
            _ => None,
        }
    });
    let left = groups.flat_map(|(mount, path, limit, usage)| {
        let own = PathBuf::from(path);
        let above: Vec<PathBuf> = own.ancestors().map(Path::to_owned).collect();
        above.into_iter().filter_map(move |group| {
            let group = Path::new(mount).join(group.strip_prefix("/").unwrap_or(&group));
            let number = |name: &str| read(&group.join(name))?.trim().parse::<u64>().ok();
            Some(number(limit)?.saturating_sub(number(usage)?))
        })
    });
    left.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_decides() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/a/b/memory.max" => "max\n",
                "/sys/fs/cgroup/a/memory.max" => "1000\n",
                "/sys/fs/cgroup/a/memory.current" => "400\n",
                "/sys/fs/cgroup/memory/old/memory.limit_in_bytes" => "900\n",
                "/sys/fs/cgroup/memory/old/memory.usage_in_bytes" => "100\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(left_to_groups("0::/a/b\n", &files), Some(600));
        assert_eq!(left_to_groups("4:cpu,memory:/old\n1:name=systemd:/x\n", &files), Some(800));
        assert_eq!(left_to_groups("0::/\n", &files), None);
        assert_eq!(field("MemTotal: 9 kB\nMemAvailable:   3 kB\n", "MemAvailable:"), Some(3072));
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
