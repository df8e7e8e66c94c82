//! What processes have used, as the kernel counts it in `/proc`.
//!
//! It only reads, but for one thing: it lets a peak begin anew.

use anyhow::Context;

/// The clock ticks in which the kernel counts processor time: 100 a second on everything that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor a process has used, all its threads, those that have ended too.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    ticks(&stat, &[14, 15]).with_context(|| format!("not a stat: {stat}"))
}

/// Seconds of processor that our own children have used which have ended.
pub(super) fn children_cpu_seconds() -> anyhow::Result<f64> {
    let stat = read("/proc/self/stat")?;
    ticks(&stat, &[16, 17]).with_context(|| format!("not a stat: {stat}"))
}

/// Seconds for which the processors were not idle, all together.
pub(super) fn machine_cpu_seconds() -> anyhow::Result<f64> {
    let stat = read("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, waiting, interrupts, soft interrupts, taken by the host.
    let [user, nice, system, _, _, hard, soft, ..] = fields[..] else {
        anyhow::bail!("not a stat: {line}");
    };
    Ok((user + nice + system + hard + soft) / TICKS_PER_SECOND)
}

/// The most that was resident of a process since its peak was forgotten last.
pub(super) fn peak_bytes(pid: u32) -> anyhow::Result<f64> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let kib = kib(&status, "VmHWM:").with_context(|| format!("no peak of {pid}"))?;
    Ok(kib * 1024.0)
}

/// Lets the peak begin with what is resident now.
pub(super) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The sum of these fields, counted from one as the manual page does. The name, which may hold anything, stands in brackets.
fn ticks(stat: &str, fields: &[usize]) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let values: Vec<&str> = behind.split_whitespace().collect();
    let value = |field: &usize| values.get(field - 3)?.parse::<f64>().ok();
    let sum: Option<f64> = fields.iter().map(value).sum();
    Some(sum? / TICKS_PER_SECOND)
}

fn kib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b 7) S 1 2 3 4 5 6 7 8 9 10 150 50 30 20 20 0 1 0";
        assert_eq!(ticks(stat, &[14, 15]), Some(2.0));
        assert_eq!(ticks(stat, &[16, 17]), Some(0.5));
        assert_eq!(ticks("42 (a", &[14]), None);
        assert_eq!(kib("VmPeak: 1 kB\nVmHWM:\t  2048 kB\n", "VmHWM:"), Some(2048.0));
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        assert!(peak_bytes(pid).expect("a peak") > 100_000.0);
        assert!(cpu_seconds(pid).expect("a stat") >= 0.0);
        assert!(machine_cpu_seconds().expect("a stat") > 0.0);
    }
}
