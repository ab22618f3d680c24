//! Options of channels, by namespace.

use fantail::config::limits::{CHANNEL_REGEX_BYTES_MAX, HISTORY_SIZE_CEILING};
use fantail::config::{ChannelOption, ChannelOptions};

use super::conversion::Conversion;
use super::settings_file::{Written, literal};

/// Converts `channel.without_namespace` and `channel.namespaces`.
pub fn convert(c: &mut Conversion) {
    namespace(c, "channel.without_namespace", "channels");
    for index in 0..c.from.count("channel.namespaces") {
        let path = format!("channel.namespaces[{index}]");
        let name = c.from.text(&format!("{path}.name"));
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_allowed) || name == "fantail" {
            c.note(
                &format!("{path}.name"),
                &format!(
                    "the namespace {name:?} is not carried over: a name has 1 to 64 letters, digits, '_', '-' \
                     or '.', and is not fantail"
                ),
            );
            c.from.take_all(&path);
            continue;
        }
        let key = if name.contains('.') { format!("\"{name}\"") } else { name };
        namespace(c, &path, &format!("namespaces.{key}"));
    }
}

/// Options with the same name and meaning.
const SWITCHES: &[&str] = &[
    "presence",
    "join_leave",
    "delta_publish",
    "allow_tags_filter",
    "allow_subscribe_for_client",
    "allow_subscribe_for_anonymous",
    "allow_user_limited_channels",
    "allow_publish_for_client",
    "allow_publish_for_subscriber",
    "allow_publish_for_anonymous",
    "allow_history_for_client",
    "allow_history_for_subscriber",
    "allow_history_for_anonymous",
    "allow_presence_for_client",
    "allow_presence_for_subscriber",
    "allow_presence_for_anonymous",
];

fn namespace(c: &mut Conversion, path: &str, section: &str) {
    let of = |name: &str| format!("{path}.{name}");
    c.to.section(section);
    let kind = c.from.text(&of("subscription_type"));
    if !kind.is_empty() && kind != "stream" {
        c.note(
            &of("subscription_type"),
            &format!("there are no channels of the type {kind} (error 108): [{section}] allows clients nothing"),
        );
        c.from.take_all(path);
        return;
    }
    history(c, path, section);
    for name in SWITCHES {
        let is_set = c.from.switch(&of(name));
        if is_set || (c.is_open && is_open_right(c, path, name)) {
            set(c, &of(name), section, name, &true.into());
        }
    }
    if c.from.switch(&of("force_push_join_leave")) {
        // All subscribers get joins and leaves.
    } else if c.from.differs(&of("join_leave")) {
        c.note(
            &of("join_leave"),
            "every subscriber gets joins and leaves, not only those that ask for them",
        );
    }
    let types = c.from.list(&of("allowed_delta_types"));
    if !types.is_empty() {
        set(c, &of("allowed_delta_types"), section, "allowed_delta_types", &Written::List(types));
    }
    let pattern = c.from.text(&of("channel_regex"));
    if !pattern.is_empty() {
        let value = Written::Text(literal(&pattern));
        set(c, &of("channel_regex"), section, "channel_regex", &value);
    }
}

/// Whether this is a right of all clients where they have every right, for something that the channels have.
fn is_open_right(c: &Conversion, path: &str, name: &str) -> bool {
    let is_for_all = name.ends_with("_for_client") || name.ends_with("_for_anonymous");
    let has = |option: &str| c.from.differs(&format!("{path}.{option}"));
    is_for_all
        && (!name.starts_with("allow_history") || has("history_size"))
        && (!name.starts_with("allow_presence") || has("presence"))
}

fn history(c: &mut Conversion, path: &str, section: &str) {
    let of = |name: &str| format!("{path}.{name}");
    let size = c.from.number(&of("history_size"));
    let ttl = c.from.time(&of("history_ttl"));
    let asked = ["force_recovery", "force_positioning", "allow_recovery", "allow_positioning"]
        .map(|name| c.from.switch(&of(name)));
    let [forces_recovery, _, allows_recovery, _] = asked;
    let mode = c.from.text(&of("force_recovery_mode"));
    let (Some(ttl), true) = (ttl, size > 0) else {
        return;
    };
    let most = i64::from(HISTORY_SIZE_CEILING);
    if size > most {
        c.note(
            &of("history_size"),
            &format!("{size}: a channel keeps at most {most} publications"),
        );
    }
    set(c, &of("history_size"), section, "history_size", &size.min(most).into());
    set(c, &of("history_ttl"), section, "history_ttl", &ttl.into());
    if !forces_recovery
        && !allows_recovery
        && !c.from.differs(&of("allow_history_for_client"))
        && !c.from.differs(&of("allow_history_for_subscriber"))
    {
        set(c, &of("force_recovery"), section, "recovery", &false.into());
    } else if !forces_recovery {
        c.note(
            &of("allow_recovery"),
            "every subscriber may recover, not only those that ask for it as they subscribe",
        );
    }
    if mode == "cache" && (forces_recovery || allows_recovery) {
        set(c, &of("force_recovery_mode"), section, "force_recovery_mode", &"cache".into());
    }
}

/// Sets an option of channels. One that fantail refuses is not set.
fn set(c: &mut Conversion, key: &str, section: &str, name: &str, value: &Written) {
    let option = ChannelOption::named(name).expect("the name of an option");
    let mut options = ChannelOptions::closed();
    let text = value.texts().join(" ").replace("$${", "${");
    match option.parse(&text, &mut options) {
        Ok(()) => c.to.set(section, name, value),
        Err(fault) if name == "channel_regex" => c.note(
            key,
            &format!(
                "not carried over, so names are NOT limited: {fault} (up to {CHANNEL_REGEX_BYTES_MAX} bytes, \
                 without Unicode classes)"
            ),
        ),
        Err(fault) => c.note(key, &format!("not carried over: {fault}")),
    }
}
