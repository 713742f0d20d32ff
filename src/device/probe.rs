//! What this machine has: processor, memory, GPUs. Everything here only looks.

use std::fs::read_to_string;
use std::path::PathBuf;

/// The host's processor.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    /// As the vendor calls it; empty where the system does not say.
    pub name: String,
    /// The instruction sets that matter to kernels and that are present.
    pub features: Vec<&'static str>,
    /// Logical processors of the machine.
    pub logical: usize,
    /// Processors' worth of time that the cgroup allows, where it limits it.
    pub cgroup_limit: Option<f64>,
}

/// The host's memory, in bytes; `None` where the system does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMemory {
    /// All of it.
    pub total: Option<u64>,
    /// What can be had without swapping.
    pub available: Option<u64>,
    /// What the cgroup allows, where it limits it.
    pub cgroup_limit: Option<u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
}

/// A CUDA device.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// As the vendor calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: u64,
}

/// The CUDA driver and its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Cuda {
    /// The newest CUDA version that the driver supports, major and minor.
    pub version: (i32, i32),
    /// The devices; empty where the driver finds none.
    pub gpus: Vec<Gpu>,
}

/// Looks at the processor.
pub fn processor() -> Processor {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
    let logical = info.lines().filter(|line| line.starts_with("processor")).count();
    Processor {
        name: name.unwrap_or_default(),
        features: features(),
        logical: if logical > 0 { logical } else { crate::cpu::available_threads() },
        cgroup_limit: cgroup("cpu", &["cpu.max"]).as_deref().and_then(quota).or_else(|| {
            let number = |name| cgroup("cpu", &[name])?.trim().parse::<f64>().ok().filter(|&n| n > 0.0);
            Some(number("cpu.cfs_quota_us")? / number("cpu.cfs_period_us")?)
        }),
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! present {
        ($($name:tt),*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    let all = present!("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16");
    all.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    macro_rules! present {
        ($($name:tt),*) => { [$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    let all = present!("neon", "fp16", "dotprod", "bf16", "i8mm", "sve", "sve2");
    all.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// Looks at the memory.
pub fn memory() -> HostMemory {
    let info = read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    let total = kib("MemTotal");
    let limit = cgroup("memory", &["memory.max", "memory.limit_in_bytes"]).and_then(|text| text.trim().parse().ok());
    let pages = read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok();
    HostMemory {
        total,
        available: kib("MemAvailable"),
        // Version 1 writes "no limit" as an immense number.
        cgroup_limit: limit.filter(|&limit| total.is_none_or(|total| limit < total)),
        huge_pages: pages.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
    }
}

/// Bytes of memory that this process holds; `None` where the system does not say.
pub fn resident() -> Option<u64> {
    resident_of("self")
}

/// The same of the process with this number on this machine.
pub fn resident_of(process: &str) -> Option<u64> {
    status(process, "VmRSS:")
}

/// The most bytes of memory that this process held at one time; `None` where the system does not say.
pub fn resident_peak() -> Option<u64> {
    status("self", "VmHWM:")
}

/// Bytes that a line of a process's status says.
fn status(process: &str, name: &str) -> Option<u64> {
    let status = read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// `max 100000` or `150000 100000`: time in a period.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The content of the first file of `names` that this process's cgroup has, in version 2 or in version 1's hierarchy of
/// `controller`; inside a container its own group is mounted as the root.
fn cgroup(controller: &str, names: &[&str]) -> Option<String> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    let mut dirs = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => PathBuf::from("/sys/fs/cgroup"),
            list if list.split(',').any(|c| c == controller) => PathBuf::from("/sys/fs/cgroup").join(controller),
            _ => continue,
        };
        dirs.extend([root.join(path.trim_start_matches('/')), root]);
    }
    dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name))).find_map(|file| read_to_string(file).ok())
}

/// Looks for the CUDA driver and its devices.
///
/// # Errors
/// Why there is no usable driver, in words.
pub fn cuda() -> Result<Cuda, String> {
    use cudarc::driver::{result, sys};
    // SAFETY: only opens the driver's library, whose initialisers are written to be loaded by any program. It must come
    // first: every other call panics where the library is missing.
    if !unsafe { sys::is_culib_present() } {
        return Err("no driver (libcuda is not installed)".into());
    }
    let failed = |e: result::DriverError| format!("the driver does not start: {e}");
    match result::init() {
        Err(result::DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
            return Err("the driver is installed and finds no device".into());
        }
        started => started.map_err(failed)?,
    }
    let mut version = 0;
    // SAFETY: the driver is there and writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed)?;
    let mut gpus = Vec::new();
    for ordinal in 0..result::device::get_count().map_err(failed)? {
        use sys::CUdevice_attribute_enum as Attribute;
        let device = result::device::get(ordinal).map_err(failed)?;
        // SAFETY: `device` comes from `get`.
        let memory = unsafe { result::device::total_mem(device) }.map_err(failed)? as u64;
        // SAFETY: as above.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(failed);
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        gpus.push(Gpu { name: result::device::get_name(device).map_err(failed)?, capability, memory });
    }
    Ok(Cuda { version: (version / 1000, version % 1000 / 10), gpus })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_read() {
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota("max 100000\n"), None);
    }

    #[test]
    fn looking_never_fails_and_what_is_found_makes_sense() {
        let processor = processor();
        assert!(processor.logical >= 1);
        let memory = memory();
        if let (Some(total), Some(available)) = (memory.total, memory.available) {
            assert!(available <= total && total > 1 << 20, "{memory:?}");
        }
        assert!(memory.cgroup_limit.is_none_or(|limit| limit > 0));
        match cuda() {
            Ok(cuda) => assert!(cuda.version.0 >= 1 && cuda.gpus.iter().all(|gpu| gpu.memory > 0), "{cuda:?}"),
            Err(why) => assert!(why.contains("driver"), "{why}"),
        }
    }
}
