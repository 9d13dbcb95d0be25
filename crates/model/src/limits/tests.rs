use super::*;

fn machine() -> MachineResources {
    MachineResources {
        memory_bytes: 16 << 30,
        processors: 8,
        disk_bytes: Some(500 << 30),
        disk_free_bytes: Some(200 << 30),
        disk_free_files: Some(1_000_000),
        open_files: Some(1024),
        locked_memory_bytes: Some(u64::MAX),
        inotify_instances: Some(128),
        inotify_watches: Some(60_000),
        control_group: ControlGroup::default(),
    }
}

fn set(text: &[&str]) -> LimitSettings {
    text.iter().map(|text| parse_setting(text).unwrap()).collect()
}

#[test]
fn the_table_has_every_limit_once_under_its_own_name() {
    let mut names: Vec<&str> = LIMITS.iter().map(|info| info.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), LIMITS.len());
    for info in LIMITS {
        assert_eq!(info.limit.info().name, info.name);
        assert_eq!(serde_json::to_value(info.limit).unwrap(), info.name);
    }
}

#[test]
fn limits_are_written_with_units_and_none_lifts_them() {
    for (text, value) in [
        ("memory=8G", Some(8 << 30)),
        ("memory=1", Some(1)),
        ("memory=512MiB", Some(512 << 20)),
        ("time=24h", Some(86_400)),
        ("time=90", Some(90)),
        ("processes=100", Some(100)),
        ("scratch-size=none", None),
        ("file-size=2T", Some(2 << 40)),
    ] {
        assert_eq!(parse_setting(text).unwrap().1, value, "{text}");
    }
    for (text, words) in [
        ("memory", "is not NAME=VALUE"),
        ("memry=1G", "there is no limit 'memry'; there are time, silence"),
        ("memory=", "is not a value of the limit 'memory'; it takes a number of bytes"),
        ("memory=-1", "is not a value"),
        ("memory=0", "is not a value"),
        ("memory=1.5G", "is not a value"),
        ("memory=1h", "is not a value"),
        ("processes=1K", "it takes a number, or 'none'"),
        ("memory=99999999999T", "is not a value"),
        ("memory=١G", "is not a value"),
    ] {
        let error = parse_setting(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn the_person_comes_before_the_profile_and_a_file_can_only_lower() {
    let nothing = LimitSettings::new();
    let decided = decide(&nothing, &nothing, &nothing, &machine());
    assert_eq!(value(&decided, Limit::Memory), Some(16 << 30));
    assert_eq!(value(&decided, Limit::Processes), Some(4096 + 8 * 256));
    assert_eq!(value(&decided, Limit::ScratchSize), Some((200 << 30) - decide::RESERVE_BYTES));
    assert_eq!(value(&decided, Limit::ScratchFiles), Some(900_000));
    assert_eq!(value(&decided, Limit::LockedMemory), Some(8 << 20));
    assert_eq!(value(&decided, Limit::InotifyInstances), Some(64));
    assert_eq!(decided[&Limit::Data].enforcement, Enforcement::Nothing);

    let decided = decide(&set(&["memory=8G"]), &set(&["memory=4G", "time=1h"]), &set(&["memory=9G"]), &machine());
    assert_eq!((decided[&Limit::Memory].value, decided[&Limit::Memory].origin), (Some(8 << 30), Origin::You));
    assert_eq!(value(&decided, Limit::SharedMemory), Some(4 << 30), "half of what there may be");
    assert_eq!((decided[&Limit::Time].value, decided[&Limit::Time].origin), (Some(3600), Origin::Profile));

    let decided = decide(&set(&["memory=none"]), &nothing, &set(&["memory=1G", "time=48h"]), &machine());
    assert_eq!((decided[&Limit::Memory].value, decided[&Limit::Memory].origin), (Some(1 << 30), Origin::File));
    assert_eq!((decided[&Limit::Time].value, decided[&Limit::Time].origin), (Some(86_400), Origin::Default));

    let lifted = decide(&nothing, &nothing, &set(&["memory=none"]), &machine());
    assert_eq!(value(&lifted, Limit::Memory), Some(16 << 30), "a file lifts nothing");
}

#[test]
fn a_machine_that_says_nothing_has_no_limits_made_up_for_it() {
    let nothing = LimitSettings::new();
    let decided = decide(&nothing, &nothing, &nothing, &MachineResources::default());
    for limit in [Limit::Memory, Limit::ScratchSize, Limit::FileSize, Limit::OpenFiles] {
        assert_eq!(decided[&limit].value, None, "{limit}");
        assert_eq!(decided[&limit].enforcement, Enforcement::Nothing);
    }
}

#[test]
fn a_machine_that_says_all_has_every_limit_but_that_of_promised_memory() {
    let nothing = LimitSettings::new();
    let rich = MachineResources {
        memory_bytes: 16 << 30,
        processors: 4,
        disk_bytes: Some(1 << 40),
        disk_free_bytes: Some(1 << 39),
        disk_free_files: Some(1 << 20),
        open_files: Some(1 << 30),
        locked_memory_bytes: Some(1 << 30),
        inotify_instances: Some(128),
        inotify_watches: Some(1000),
        control_group: ControlGroup::default(),
    };
    let decided = decide(&nothing, &nothing, &nothing, &rich);
    for info in &LIMITS {
        assert_eq!(value(&decided, info.limit).is_some(), info.limit != Limit::Data, "{}", info.limit);
    }
    assert_eq!(value(&decided, Limit::OpenFiles), Some(524_288));
    assert_eq!(value(&decided, Limit::LockedMemory), Some(8 << 20));
    assert_eq!(value(&decided, Limit::InotifyWatches), Some(500));
    for text in ["processes=+5", "processes=-5", "processes= 5", "time=+5s", "memory=G"] {
        assert!(parse_setting(text).is_err(), "{text}");
    }
}

#[test]
fn a_control_group_keeps_memory_and_processes_where_there_is_one() {
    let nothing = LimitSettings::new();
    let group = ControlGroup::Delegated { directory: "/sys/fs/cgroup/mine".into() };
    let decided = decide(&nothing, &nothing, &nothing, &MachineResources { control_group: group, ..machine() });
    assert_eq!(decided[&Limit::Memory].enforcement, Enforcement::ControlGroup);
    assert_eq!(decided[&Limit::Processes].enforcement, Enforcement::ControlGroup);
    assert_eq!(decided[&Limit::ScratchSize].enforcement, Enforcement::Watchdog);
}

#[test]
fn values_are_told_in_words() {
    assert_eq!(Limit::Memory.words(8 << 30), "8 GiB");
    assert_eq!(Limit::Memory.words((1 << 30) + 1), "1.0 GiB (1073741825 bytes)");
    assert_eq!(Limit::Time.words(60), "60 seconds");
    assert_eq!(Limit::Processes.words(4096), "4096");
}
