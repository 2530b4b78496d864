//! Layering, and what a wrong setting is told.

use std::path::PathBuf;

use figment::value::Value;

use super::keys::KEYS;
use super::*;
use crate::error::Error;

fn sources(environment: &[(&str, &str)]) -> ConfigSources {
    let own = |text: &str| text.to_owned();
    ConfigSources {
        environment: environment
            .iter()
            .map(|(name, value)| (own(name), own(value)))
            .collect(),
        ..ConfigSources::default()
    }
}

fn with_file(text: &str) -> (tempfile::TempDir, ConfigSources) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("jammi.toml"), text).unwrap();
    let sources = ConfigSources {
        working_dir: dir.path().to_owned(),
        ..ConfigSources::default()
    };
    (dir, sources)
}

fn refusal(sources: ConfigSources) -> String {
    match JammiConfig::load(sources) {
        Err(Error::InvalidArgument(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_key_table_lists_every_setting() {
    fn leaves(value: &Value, prefix: &str, found: &mut Vec<String>) {
        match value {
            Value::Dict(_, dict) => {
                for (name, value) in dict {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    leaves(value, &format!("{prefix}{dot}{name}"), found);
                }
            }
            _ => found.push(prefix.to_owned()),
        }
    }
    let mut found = Vec::new();
    let all = Value::serialize(JammiConfig::default()).unwrap();
    leaves(&all, "", &mut found);
    found.sort();
    let mut listed: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    listed.sort();
    assert_eq!(found, listed);
}

#[test]
fn nothing_given_is_the_default() {
    let config = JammiConfig::load(ConfigSources::default()).unwrap();
    assert_eq!(config, JammiConfig::default());
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let (_dir, mut sources) = with_file(
        "artifact_dir = \"/from/file\"\n\
         [server]\nlisten = \"127.0.0.1:1\"\nhttp_listen = \"127.0.0.1:2\"\n\
         drain_timeout_ms = 3\n[log]\nformat = \"json\"\n",
    );
    sources.environment = vec![
        ("JAMMI_SERVER__LISTEN".into(), "127.0.0.1:10".into()),
        ("JAMMI_SERVER__HTTP_LISTEN".into(), "127.0.0.1:20".into()),
        ("HOME".into(), "/root".into()),
    ];
    sources.flags = vec![FlagValue {
        flag: "--listen",
        key: "server.listen",
        value: "127.0.0.1:100".into(),
    }];
    let config = JammiConfig::load(sources.clone()).unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:100");
    assert_eq!(config.server.http_listen, "127.0.0.1:20");
    assert_eq!(config.server.drain_timeout_ms, 3);
    assert_eq!(config.artifact_dir, PathBuf::from("/from/file"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.sessions, SessionsConfig::default());

    let shown = show(sources).unwrap();
    for line in [
        "listen = \"127.0.0.1:100\"  # --listen",
        "http_listen = \"127.0.0.1:20\"  # JAMMI_SERVER__HTTP_LISTEN",
        "max = 100000  # default",
        "# roots is not set",
        "[sources]",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    assert!(shown.contains("drain_timeout_ms = 3  # ") && shown.contains("jammi.toml"));
    // What is shown is a settings file that says the same.
    let (_dir, again) = with_file(&shown);
    assert_eq!(JammiConfig::load(again).unwrap(), config);
}

#[test]
fn variables_are_read_by_the_kind_of_their_setting() {
    let config = JammiConfig::load(sources(&[
        ("JAMMI_ARTIFACT_DIR", "123"),
        ("JAMMI_TENANCY__ANONYMOUS_READS", "off"),
        (
            "JAMMI_SERVER__ALLOWED_ORIGINS",
            "https://a.example, https://b.example:8443",
        ),
        ("JAMMI_SOURCES__ROOTS", "[\"/data\", \"s3://bucket\"]"),
        ("JAMMI_ENGINE__TARGET_PARTITIONS", "4"),
        ("JAMMI_TENANT", "not a setting"),
    ]))
    .unwrap();
    assert_eq!(config.artifact_dir, PathBuf::from("123"));
    assert!(!config.tenancy.anonymous_reads);
    assert_eq!(config.server.allowed_origins.len(), 2);
    assert_eq!(
        config.sources.roots,
        Some(vec!["/data".into(), "s3://bucket".into()])
    );
    assert_eq!(config.engine.target_partitions, Some(4));
}

#[test]
fn a_wrong_setting_names_itself_and_the_mend() {
    for (name, value, wanted) in [
        ("JAMMI_SERVER__TYPO", "1", "server.listen"),
        ("JAMMI_SERVER__TYPO", "1", "JAMMI_SERVER__TYPO"),
        ("JAMMI_TYPO", "1", "artifact_dir"),
        ("JAMMI_NO__SUCH", "1", "server.listen"),
        (
            "JAMMI_server__listen",
            "127.0.0.1:1",
            "JAMMI_server__listen",
        ),
        ("JAMMI_SESSIONS__MAX", "many", "a whole number"),
        ("JAMMI_SESSIONS__MAX", "-1", "sessions.max"),
        ("JAMMI_SESSIONS__MAX", "0", "sessions.max"),
        (
            "JAMMI_SERVER__HEADER_BYTES_MAX",
            "99999999999",
            "server.header_bytes_max",
        ),
        ("JAMMI_TENANCY__ANONYMOUS_READS", "maybe", "true or false"),
        ("JAMMI_LOG__FORMAT", "xml", "log.format"),
    ] {
        let text = refusal(sources(&[(name, value)]));
        assert!(text.contains(wanted), "{name}={value}: {text}");
    }
    for (file, wanted) in [
        ("[server]\ntypo = 1", "server.typo"),
        ("typo = 1", "typo"),
        ("server = 1", "[server]"),
        ("[typo]\nlisten = 1", "typo"),
        ("[server]\nlisten = 1", "write text"),
        ("[server]\nlisten = \"a:1\"\nlisten = \"a:1\"", "line 3"),
        ("[sources]\nroots = \"/data\"", "a list of texts"),
        ("[sources]\nroots = [1]", "a list of texts"),
    ] {
        let (_dir, sources) = with_file(file);
        let text = refusal(sources);
        assert!(
            text.contains(wanted) && text.contains("jammi.toml"),
            "{file}: {text}"
        );
    }
}

#[test]
fn a_named_file_must_exist() {
    let by_flag = ConfigSources {
        file: Some("/no/such/jammi.toml".into()),
        ..ConfigSources::default()
    };
    let by_variable = sources(&[("JAMMI_CONFIG", "/no/such/jammi.toml")]);
    for sources in [by_flag, by_variable] {
        assert!(refusal(sources).contains("/no/such/jammi.toml"));
    }
}
