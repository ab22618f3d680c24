//! Warnings about settings that have no effect, given once at the start and by `fantail check`. They are not errors:
//! they do no harm, and other programs set variables in a process's environment too.

use super::nearest::nearest;
use super::origin::VARIABLE_PREFIX;
use super::{ChannelOptions, ClientRight, Config, FILE_VARIABLE, Origin, SETTINGS, SlowConsumer};

/// A warning about a variable that is not a setting; `None` if it is empty or injected by an orchestrator.
pub(super) fn of_variable(name: &str, value: Option<&str>) -> Option<String> {
    if value.is_some_and(|value| value.trim().is_empty() || is_injected(name, value)) {
        return None;
    }
    let word = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
    let says = format!("{name} is not a setting and has no effect");
    if ["CALLBACKS_", "CHANNELS_", "NAMESPACES_"].iter().any(|section| word.starts_with(section)) {
        return Some(format!("{says}: channel options and callbacks are set in the settings file"));
    }
    let known: Vec<_> = SETTINGS.iter().map(super::Setting::variable).collect();
    let words = known.iter().map(String::as_str).chain([FILE_VARIABLE]);
    let words = words.map(|name| name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name));
    let near = of_flag(word).or_else(|| match word {
        "CONFIG_FILE" => Some(FILE_VARIABLE.to_owned()),
        _ => nearest(word, words).map(|near| format!("{VARIABLE_PREFIX}{near}")),
    });
    Some(near.map_or(says.clone(), |near| format!("{says}; did you mean {near}?")))
}

/// The variable of the setting whose flag is written like this. Flags of one word do not count: `FANTAIL_ECHO` may have
/// nothing to do with this server.
fn of_flag(word: &str) -> Option<String> {
    let flag = word.to_ascii_lowercase().replace('_', "-");
    let setting = SETTINGS.iter().find(|setting| setting.flag == flag && flag.contains('-'))?;
    Some(setting.variable())
}

/// Whether this is one of the variables that Kubernetes and Docker set in every container next to a service called
/// `fantail` or `fantail-…`: `…_SERVICE_HOST`, `…_SERVICE_PORT` and one for each named port,
/// `…_PORT=tcp://10.0.0.1:80`, `…_PORT_80_TCP` and its `_PROTO`, `_PORT` and `_ADDR` (Kubernetes, "Accessing the
/// Service", environment variables).
fn is_injected(name: &str, value: &str) -> bool {
    let protocol =
        |text: &str| ["tcp", "udp", "sctp"].contains(&text.to_ascii_lowercase().as_str());
    let is_url = value.split_once("://").is_some_and(|(scheme, _)| protocol(scheme));
    let of_one_port = || {
        let (_, rest) = name.rsplit_once("_PORT_").filter(|(_, rest)| !rest.is_empty())?;
        // In …_PORT_80_TCP_PORT, the last "_PORT" is the suffix, which `rsplit_once` does not match.
        let mut parts = rest.split('_');
        let (number, kind) = (parts.next()?, parts.next()?);
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && protocol(kind)).then_some(())
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url)
        || of_one_port().is_some()
}

/// The reason why a channel option that is set has no effect together with the others; `None` if it has one.
pub(super) fn of_option(options: &ChannelOptions, given: &str) -> Option<&'static str> {
    let keeps_nothing = options.history_size == 0;
    match given {
        "history_ttl" | "history_bytes" if keeps_nothing => Some("history_size is 0"),
        "recovery" if keeps_nothing && options.recovery => Some("history_size is 0"),
        "force_recovery_mode" if keeps_nothing => Some("history_size is 0"),
        "force_recovery_mode" if !options.recovery => Some("recovery is false"),
        "delta_publish" if options.delta_publish && !options.allows_deltas => {
            Some("allowed_delta_types is empty")
        }
        "allow_history_for_client" | "allow_history_for_subscriber"
            if keeps_nothing && options.allow_history != ClientRight::NONE =>
        {
            Some("history_size is 0")
        }
        "allow_presence_for_client" | "allow_presence_for_subscriber"
            if !options.presence && options.allow_presence != ClientRight::NONE =>
        {
            Some("presence is false")
        }
        "backlog_size" if options.slow_consumer != SlowConsumer::DropOldest => {
            Some("slow_consumer is not drop_oldest")
        }
        _ if includes_in_nothing(options, given) => {
            Some("clients with a user do not have this right")
        }
        _ => None,
    }
}

/// Whether an option that includes clients without a user includes them in nothing.
fn includes_in_nothing(options: &ChannelOptions, given: &str) -> bool {
    let right = match given {
        "allow_subscribe_for_anonymous" => options.allow_subscribe,
        "allow_publish_for_anonymous" => options.allow_publish,
        "allow_history_for_anonymous" => options.allow_history,
        "allow_presence_for_anonymous" => options.allow_presence,
        _ => ClientRight::NONE,
    };
    right.anonymous && !right.client && !right.subscriber
}

/// A warning for each setting that is set and has no effect together with the others.
pub(super) fn of_settings(config: &Config, origins: &[Origin]) -> Vec<String> {
    let rows = SETTINGS.iter().zip(origins).filter(|(_, origin)| **origin != Origin::Default);
    let without = rows.filter_map(|(setting, origin)| {
        let why = match setting.name {
            "tcp.framing" if config.tcp.is_empty() => "tcp.listen is not set",
            "tls.cert"
            | "tls.key"
            | "tls.version_min"
            | "tls.ticket_secret"
            | "tls.ticket_secret_file"
            | "tls.client_ca"
                if config.encrypted_addresses().next().is_none() =>
            {
                "no address is followed by tls"
            }
            "tls.client_auth" if config.tls.client_ca.is_none() => "tls.client_ca is not set",
            "tls.ticket_secret" | "tls.ticket_secret_file" if config.tls.client_ca.is_some() => {
                "with tls.client_ca, there are no session tickets"
            }
            "tls.cert" | "tls.key" if config.self_signed => "tls.self_signed is set",
            "unix.mode" if config.addresses().all(|address| address.ip().is_some()) => {
                "no address is a Unix socket"
            }
            "auth.cookie" | "auth.token_in_query" if !config.verifies_tokens() => {
                "there is no key for tokens"
            }
            "auth.cookie" if config.allows_any_origin() != Some(false) => {
                "http.origins does not list the origins of the pages that may use it"
            }
            "auth.personal_channel_namespace" if !config.personal.are_on => {
                "auth.personal_channel is false"
            }
            "echo.message_bytes_max" if config.echo.is_empty() => "echo.listen is not set",
            "api.key" | "api.key_file" | "http.origins" | "http.page"
                if config.listen.is_empty() && config.admin.is_empty() =>
            {
                "listen is not set"
            }
            _ => return None,
        };
        Some(format!("{origin}: {} has no effect: {why}", setting.name))
    });
    let mut warnings: Vec<_> = without.collect();
    if !config.api_keys.is_empty() && config.listen.is_empty() {
        warnings.push("api.keys has no effect: listen is not set".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_injected_by_orchestrators_are_ignored() {
        for (name, value) in [
            ("FANTAIL_PORT", "tcp://10.0.0.1:8000"),
            ("FANTAIL_HTTP_PORT", "tcp://10.0.0.1:80"),
            ("FANTAIL_DNS_PORT", "udp://10.0.0.1:53"),
            ("FANTAIL_SERVICE_HOST", "10.0.0.1"),
            ("FANTAIL_SERVICE_PORT", "80"),
            ("FANTAIL_HTTP_SERVICE_PORT_WEB", "80"),
            ("FANTAIL_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("FANTAIL_PORT_80_TCP_PROTO", "tcp"),
            ("FANTAIL_PORT_80_TCP_PORT", "80"),
            ("FANTAIL_HTTP_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("FANTAIL_WORKER", " "),
        ] {
            assert_eq!(of_variable(name, Some(value)), None, "{name}={value}");
        }
        // The variables of settings are never ignored.
        for setting in SETTINGS {
            assert!(!is_injected(&setting.variable(), "127.0.0.1:1"), "{}", setting.name);
        }
    }

    #[test]
    fn an_unknown_variable_is_named_with_the_setting_that_may_be_meant() {
        for (name, words) in [
            ("FANTAIL_PORT", "FANTAIL_PORT is not a setting and has no effect"),
            ("FANTAIL_HTTP_PORT", "has no effect"),
            ("FANTAIL_CHANNELS_HISTORY_SIZE", "are set in the settings file"),
            ("FANTAIL_NAMESPACES_CHAT_PUBLISH", "are set in the settings file"),
            ("FANTAIL_CONFIG_FILE", "did you mean FANTAIL_CONFIG?"),
            ("FANTAIL_CLOSE_TIMEOUT", "did you mean FANTAIL_LIMITS_CLOSE_TIMEOUT?"),
            ("FANTAIL_WORKER", "did you mean FANTAIL_WORKERS?"),
            ("FANTAIL_PORTER_80_TCP", "has no effect"),
        ] {
            let sentence = of_variable(name, Some("80")).unwrap_or_default();
            assert!(sentence.contains(words), "{sentence}");
        }
        assert!(of_variable("FANTAIL_X", None).is_some(), "its value is not UTF-8");
    }
}
