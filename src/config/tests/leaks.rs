//! What must not be shown is not shown, wherever it was written.

use super::*;

#[test]
fn a_secret_comes_from_a_value_or_a_file_but_not_both() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let password = |sources: Sources| {
        load::<Role>(sources).unwrap().settings.1.password.unwrap().expose().to_owned()
    };
    assert_eq!(password(sources(&format!("{GOOD}password = 'inline'"))), "inline");
    let variable = ("POSTRIDER__STORE__PASSWORD", "variable");
    assert_eq!(password(sources(GOOD).variables([variable])), "variable");
    let by_file = format!("{GOOD}password_file = '{}'", file.display());
    assert_eq!(password(sources(&by_file)), "hunter2");
    let flag = format!("--store.password_file={}", file.display());
    assert_eq!(password(sources(GOOD).flags(flags(&[&flag]))), "hunter2");

    let effective = load::<Role>(sources(&by_file)).unwrap().effective;
    assert!(effective.contains(&format!("password_file = \"{}\" # app.toml:3", file.display())));
    assert!(!effective.contains("hunter2"));
    let said = refused(sources(&by_file).variables([variable]));
    assert_says(
        &said,
        &[
            "store.password: (secret), must be given only once, store.password_file is set as well [app.toml:3]: remove one [variable POSTRIDER__STORE__PASSWORD]",
        ],
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused(sources(&by_file));
    assert_says(&said, &["must be a private file with the secret"]);
    assert!(said.contains("store.password_file: ") && said.contains("chmod 0600"), "{said}");
}

#[test]
fn print_config_is_toml_with_origins_and_no_secret() {
    let toml =
        "[store]\nurl = 'x://app:hunter2@y/z'\npassword = 'hunter2'\ntls = false\ncache = 4096\n";
    let sources = sources(toml).variables([("POSTRIDER__STORE__POOL_SIZE", "+007")]);
    let loaded = load::<Role>(sources.flags(flags(&["--log.level=a\"b\\"]))).unwrap();
    let expected = "[log]\nlevel = 'a\"b\\' # flag --log.level\nformat = \"auto\" # default\n\n\
        [store]\nurl = \"x://app:***@y/z\" # app.toml:2\npassword = \"(set)\" # app.toml:3\n\
        pool_size = 7 # variable POSTRIDER__STORE__POOL_SIZE\ncache = 4096 # app.toml:5\n\
        timeout = \"10s\" # default\ntls = false # app.toml:4\n# root is not set\n";
    assert_eq!(loaded.effective, expected);
    // It can be given back: only what was hidden differs.
    let again = load::<Role>(super::sources(&loaded.effective)).unwrap().settings;
    assert_eq!(again.0, loaded.settings.0);
    assert_eq!((again.1.pool_size, again.1.cache, again.1.tls), (7, 4096, false));
}

#[test]
fn a_line_break_in_a_value_or_a_name_cannot_forge_a_line() {
    let toml =
        "[store]\nurl = 'x://y'\n\"a\\u001b[2J\\n\" = 1\ntimeout = \"1s\\nforged: \\u001b[2J\"\n";
    let said = refused(sources(toml));
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
    let sources = Sources::new(APP).toml("a\nb = 1.toml", GOOD);
    let effective = load::<Role>(sources).unwrap().effective;
    assert!(effective.contains("# a\\nb = 1.toml:2"), "{effective}");
}

#[test]
fn long_values_are_cut_and_passwords_in_urls_hidden() {
    let said = refused(sources(&format!("store.url = 'postgres:{}'", "x".repeat(10_000))));
    assert!(said.len() < 500 && said.contains("x…\""), "{said}");
    // A URL in the wrong place must not be quoted by the reason either.
    for url in ["x://app:hunter2@y password=hunter2", "1x://app:hunter2@y"] {
        for key in ["timeout", "cache", "tls", "pool_size"] {
            let said = refused(sources(&format!("store.url = 'x://y'\nstore.{key} = '{url}'")));
            assert!(said.contains("x://app:***@y") && !said.contains("hunter2"), "{said}");
        }
    }
}

/// Files that are damaged anywhere but in the secret itself never show it.
#[test]
fn no_damage_to_a_file_shows_its_secret() {
    let (before, after) =
        ("[log]\nlevel = 'x'\n[store]\nurl = 'x://y'\npassword = \"", "\"\ntls = true\n");
    for seed in crate::property::seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let damage = |text: &str, random: &mut fastrand::Rng| {
            let mut letters: Vec<char> = text.chars().collect();
            for _ in 0..random.usize(..3) {
                let at = random.usize(..letters.len());
                match random.u8(..3) {
                    0 => drop(letters.remove(at)),
                    1 => letters.insert(at, ['"', '\'', '\n', '=', '[', '#'][random.usize(..6)]),
                    _ => letters.swap(at, at / 2),
                }
            }
            letters.into_iter().collect::<String>()
        };
        let toml = damage(before, &mut random) + "hunter2" + &damage(after, &mut random);
        let said = format!("{:?}", sources(&toml));
        assert!(!said.contains("hunter2"));
        match load::<Role>(sources(&toml)) {
            Ok(loaded) => drop(loaded),
            Err(problems) => {
                let said = format!("{problems} {problems:?}");
                assert!(!said.contains("hunter2"), "{toml}\n{said}");
            }
        }
    }
}
