//! The `[limits]` table of a profile.

use crate::limits::{LimitSettings, find};
use std::collections::BTreeMap;

/// Numbers, or texts with units; and the reason, as everything in a profile has one.
pub(super) fn read(mut table: BTreeMap<String, toml::Value>) -> Result<LimitSettings, String> {
    let why = table.remove("why");
    if why.as_ref().and_then(toml::Value::as_str).is_none_or(|why| why.trim().is_empty()) {
        return Err("[limits] has no 'why'".to_owned());
    }
    table
        .into_iter()
        .map(|(name, value)| {
            let text = match (value.as_str(), value.as_integer()) {
                (Some(text), _) => text.to_owned(),
                (None, Some(number)) => number.to_string(),
                (None, None) => {
                    return Err(format!("[limits]: '{name}' is a {}, not a number or a text", value.type_str()));
                }
            };
            let limit = find(&name).map_err(|error| format!("[limits]: {error}"))?;
            Ok((limit, limit.parse_value(&text).map_err(|error| format!("[limits]: {error}"))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::{limits::Limit, profile};

    #[test]
    fn a_profile_sets_limits_and_says_why() {
        let text = "extends = \"nix\"\n[limits]\nmemory = \"8G\"\nprocesses = 100\ntime = \"none\"\nwhy = \"a small machine\"\n";
        let limits = profile::parse("p", text).expect("a profile").limits;
        assert_eq!(limits, [(Limit::Memory, Some(8 << 30)), (Limit::Processes, Some(100)), (Limit::Time, None)].into());
        for (from, to, words) in [
            ("why = \"a small machine\"", "", "has no 'why'"),
            ("memory", "memry", "there is no limit 'memry'"),
            ("\"8G\"", "\"8 gigabytes\"", "is not a value of the limit 'memory'"),
            ("100", "-1", "is not a value"),
            ("100", "1.5", "is a float, not a number or a text"),
        ] {
            let error = profile::parse("p", &text.replace(from, to)).expect_err("a refusal").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
