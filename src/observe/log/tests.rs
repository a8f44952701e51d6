//! The log's lines, its filter and its style.

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;

/// What has been logged, for other modules' tests too.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Collects what this thread logs from now on, until the guard is dropped.
pub(crate) fn capture() -> (Buffer, tracing::subscriber::DefaultGuard) {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let layer = lines(Style::Plain, move || writer.clone());
    let subscriber = Registry::default().with(layer.with_filter(LogLevel::default().0));
    (buffer, tracing::subscriber::set_default(subscriber))
}

fn logged(style: Style, level: &str, events: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let level: LogLevel = level.parse().unwrap();
    let subscriber =
        Registry::default().with(lines(style, move || writer.clone()).with_filter(level.0));
    tracing::subscriber::with_default(subscriber, events);
    buffer.text()
}

fn an_event() {
    let _task = tracing::error_span!("in", task = "publish").entered();
    tracing::info!(port = 9464, "listening");
    tracing::debug!("a detail");
}

#[test]
fn json_is_one_flat_object_a_line() {
    let text = logged(Style::Json, "info", an_event);
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["message"], "listening");
    assert_eq!(line["port"], 9464);
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["span"]["task"], "publish");
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn human_lines_have_colour_only_when_asked() {
    let plain = logged(Style::Plain, "info", an_event);
    assert!(plain.contains("listening port=9464"), "{plain}");
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    assert!(logged(Style::Coloured, "info", an_event).contains('\u{1b}'));
}

#[test]
fn style_follows_the_terminal_and_no_color() {
    use LogFormat::{Auto, Human, Json};
    for (format, terminal, no_color, style) in [
        (Auto, true, false, Style::Coloured),
        (Auto, true, true, Style::Plain),
        (Auto, false, false, Style::Json),
        (Human, false, false, Style::Plain),
        (Human, true, false, Style::Coloured),
        (Human, true, true, Style::Plain),
        (Json, true, false, Style::Json),
    ] {
        assert_eq!(Style::choose(format, terminal, no_color), style, "{format:?} {terminal}");
    }
}

#[test]
fn a_module_may_say_more_than_the_rest() {
    let text = logged(Style::Plain, "warn,postrider::observe=debug", an_event);
    assert!(text.contains("a detail"), "{text}");
    assert!(logged(Style::Plain, "debug,postrider::observe=off", an_event).is_empty());
    assert!(logged(Style::Plain, "rdkafka=off", an_event).contains("listening"));
}

#[test]
fn a_bad_filter_is_refused_by_its_part() {
    let refusal = |text: &str| text.parse::<LogLevel>().unwrap_err().to_string();
    assert_eq!(refusal("inof"), "`inof` is not a level");
    assert_eq!(refusal("info,rdkafka=loud"), "`loud` is not a level");
    assert_eq!(refusal(""), "`` is not a level");
    assert!(refusal("=debug").starts_with("`=debug` names no module"));
    assert!(refusal("info,debug").contains("second level"));
    assert!(refusal(&"a=info,".repeat(DIRECTIVES_MAX + 1)).contains("more than 64"));
    assert_eq!("INFO".parse(), Ok(LogLevel::default()));
}

#[test]
fn a_panic_is_one_event_with_its_place() {
    // The hook is the process's; it falls through to whatever log the panicking thread has.
    panics::log_panics();
    let text = logged(Style::Json, "info", || {
        let caught = std::panic::catch_unwind(|| panic!("planted: {}", 7));
        assert_eq!(panics::message(caught.unwrap_err().as_ref()), "planted: 7");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["message"], "panic: planted: 7");
    assert!(line["place"].as_str().unwrap().starts_with("src/observe/log/tests.rs:"), "{text}");
    assert!(panics::follow().borrow().is_some());
}
