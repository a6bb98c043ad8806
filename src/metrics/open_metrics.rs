//! Metrics as OpenMetrics 1.0 text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::fmt::{self, Display, Write};

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::timing::{Example, Examples};

/// All of them, with an example beside the counts that have one.
pub(super) fn render(families: &[MetricFamily], examples: &Examples) -> String {
    let mut text = String::with_capacity(16 * 1024);
    // writing into a String cannot fail
    if families.iter().try_for_each(|family| write_family(&mut text, family, examples)).is_ok() {
        text.push_str("# EOF\n");
    }
    text
}

fn write_family(text: &mut String, family: &MetricFamily, examples: &Examples) -> fmt::Result {
    let name = family.name();
    let (kind, base) = match family.get_field_type() {
        // a family has its counter's name without the end
        MetricType::COUNTER => ("counter", name.strip_suffix("_total").unwrap_or(name)),
        MetricType::GAUGE => ("gauge", name),
        MetricType::HISTOGRAM => ("histogram", name),
        MetricType::SUMMARY | MetricType::UNTYPED => return Ok(()),
    };
    writeln!(text, "# TYPE {base} {kind}")?;
    if base.ends_with("_seconds") {
        writeln!(text, "# UNIT {base} seconds")?;
    }
    writeln!(text, "# HELP {base} {}", Escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels =
            metric.get_label().iter().map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
        match family.get_field_type() {
            MetricType::COUNTER => {
                writeln!(text, "{base}_total{} {}", Labels(metric, None), metric.get_counter().get_value())?;
            }
            MetricType::GAUGE => writeln!(text, "{base}{} {}", Labels(metric, None), metric.get_gauge().get_value())?,
            _ => write_histogram(text, base, metric, examples, &(name.to_owned(), labels))?,
        }
    }
    Ok(())
}

fn write_histogram(
    text: &mut String,
    name: &str,
    metric: &Metric,
    examples: &Examples,
    key: &(String, Vec<(String, String)>),
) -> fmt::Result {
    let histogram = metric.get_histogram();
    let series = examples.find(key);
    let mut buckets: Vec<(f64, u64)> =
        histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        buckets.push((f64::INFINITY, histogram.get_sample_count()));
    }
    for (place, (bound, count)) in buckets.into_iter().enumerate() {
        write!(text, "{name}_bucket{} {count}", Labels(metric, Some(bound)))?;
        if let Some(example) = series.as_ref().and_then(|series| series.at(place)) {
            write_example(text, example)?;
        }
        text.push('\n');
    }
    writeln!(text, "{name}_count{} {}", Labels(metric, None), histogram.get_sample_count())?;
    writeln!(text, "{name}_sum{} {}", Labels(metric, None), histogram.get_sample_sum())
}

fn write_example(text: &mut String, example: Example) -> fmt::Result {
    let (seconds, millis) = (example.time_ms.div_euclid(1000), example.time_ms.rem_euclid(1000));
    write!(text, " # {{trace_id=\"{:032x}\"}} {} {seconds}.{millis:03}", example.trace_id, example.seconds)
}

/// A metric's labels in braces, and `le` of a bucket; nothing where there are none.
struct Labels<'a>(&'a Metric, Option<f64>);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut opener = '{';
        for label in self.0.get_label() {
            write!(f, "{opener}{}=\"{}\"", label.name(), Escaped(label.value()))?;
            opener = ',';
        }
        if let Some(bound) = self.1 {
            // canonical numbers: 1.0, not 1
            let bound = if bound.is_infinite() { "+Inf".to_owned() } else { format!("{bound:?}") };
            write!(f, "{opener}le=\"{bound}\"")?;
            opener = ',';
        }
        if opener == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// Text between quotes, or of a HELP line.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            letter => f.write_char(letter),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Metrics;

    #[test]
    fn a_duration_names_its_trace_once_somebody_reads_examples() {
        let metrics = Metrics::new();
        let timing = metrics.timing("wait_seconds", "how long", &[("service", "a\"b\\c\nd")]);
        timing.observe(Duration::from_micros(700), Some(0xabc));
        let first = metrics.render_open_metrics();
        assert!(!first.contains("trace_id"), "{first}");
        timing.observe(Duration::from_micros(800), Some(0xdef));
        timing.observe(Duration::from_secs(60), None);
        let text = metrics.render_open_metrics();
        let service = r#"service="a\"b\\c\nd""#;
        let bucket =
            format!("goms_wait_seconds_bucket{{{service},le=\"0.001\"}} 2 # {{trace_id=\"{:032x}\"}} 0.0008 ", 0xdef);
        assert!(text.contains(&bucket), "{text}");
        assert!(text.contains(&format!("goms_wait_seconds_bucket{{{service},le=\"+Inf\"}} 3\n")), "{text}");
        assert!(text.contains(&format!("goms_wait_seconds_count{{{service}}} 3\n")), "{text}");
        assert!(text.contains("# TYPE goms_wait_seconds histogram\n# UNIT goms_wait_seconds seconds\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_counter_ends_in_total_and_its_family_does_not() {
        let metrics = Metrics::new();
        metrics.counter("things_total", "things", &[]).with_label_values::<&str>(&[]).inc_by(7);
        let text = metrics.render_open_metrics();
        assert!(
            text.contains("# TYPE goms_things counter\n# HELP goms_things things\ngoms_things_total 7\n"),
            "{text}"
        );
        assert!(text.contains(&format!("goms_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))), "{text}");
        assert!(text.contains("# TYPE process_cpu_seconds counter\n"), "{text}");
    }
}
