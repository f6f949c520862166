//! Pictures of a run, as SVG: bars for who costs how much, lines for how cost grows.

use std::io;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::book::Book;
use crate::cells::{COMMITCAST, FLOOR, PEERS};
use crate::targets::SIZES;

const SIZE: (u32, u32) = (760, 360);
const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const BARE: RGBColor = RGBColor(0x80, 0x80, 0x80);
const THEIRS: RGBColor = RGBColor(0xd9, 0x8a, 0x3d);

/// A bar's figure stands at its end, at half its height.
const BESIDE: Pos = Pos { h_pos: HPos::Left, v_pos: VPos::Center };

/// Draws what was measured into `folder`; the names of the files.
pub fn draw(book: &Book, folder: &Path) -> io::Result<Vec<String>> {
    let mut drawn = Vec::new();
    for (file, workload, title) in [
        ("ping.svg", "ping", "server CPU per JSON ping and pong, µs"),
        ("pipeline.svg", "pipeline", "server CPU per message, 16 in flight on each connection, µs"),
        ("fanout.svg", "fanout", "server CPU per delivery to 1,000 members, one in flight, µs"),
        ("fanout-64.svg", "fanout-64", "server CPU per delivery to 1,000 members, 64 in flight, µs"),
        ("upgrade.svg", "upgrade", "server CPU per upgrade, µs"),
    ] {
        let bars = everybody().filter_map(|server| Some((server, book.cpu(workload, server).ok()? / 1e3)));
        drawn.extend(bar_chart(folder, file, title, &bars.collect::<Vec<_>>())?);
    }
    let bars = everybody().filter_map(|server| Some((server, book.rate("updates", server).ok()?)));
    let title = "confirmed document updates per second, 100 rooms of 2";
    drawn.extend(bar_chart(folder, "updates.svg", title, &bars.collect::<Vec<_>>())?);
    drawn.extend(growth(book, folder, "growth.svg")?);
    Ok(drawn)
}

fn everybody() -> impl Iterator<Item = &'static str> {
    [COMMITCAST, FLOOR].into_iter().chain(PEERS.iter().copied())
}

fn colour(server: &str) -> RGBColor {
    match server {
        COMMITCAST => OURS,
        FLOOR => BARE,
        _ => THEIRS,
    }
}

/// `None` where there is nothing to be seen.
fn bar_chart(folder: &Path, file: &str, title: &str, bars: &[(&str, f64)]) -> io::Result<Option<String>> {
    if bars.is_empty() {
        return Ok(None);
    }
    let path = folder.join(file);
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(undrawn)?;
    let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(130)
        .build_cartesian_2d(0.0..most * 1.15, (0..bars.len() as i32).into_segmented())
        .map_err(undrawn)?;
    let name = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(place) | SegmentValue::Exact(place) => {
            let bar = usize::try_from(*place).ok().and_then(|place| bars.get(bars.len().checked_sub(place + 1)?));
            bar.map_or_else(String::new, |(server, _)| (*server).to_owned())
        }
        SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        // None are wanted, but asked for none the library looks for ever larger steps between them (0.3.7).
        .max_light_lines(1)
        .light_line_style(TRANSPARENT)
        .y_labels(bars.len())
        .y_label_formatter(&name)
        .x_label_formatter(&|value| short(*value))
        .draw()
        .map_err(undrawn)?;
    // The first bar is the uppermost one.
    for (place, (server, value)) in bars.iter().rev().enumerate() {
        let (from, to) = (SegmentValue::Exact(place as i32), SegmentValue::Exact(place as i32 + 1));
        let mut bar = Rectangle::new([(0.0, from), (*value, to)], colour(server).filled());
        bar.set_margin(5, 5, 0, 0);
        chart.draw_series([bar]).map_err(undrawn)?;
        let at = (*value + most * 0.01, SegmentValue::CenterOf(place as i32));
        let style = ("sans-serif", 13).into_text_style(&root).pos(BESIDE);
        let text = Text::new(short(*value), at, style);
        chart.draw_series([text]).map_err(undrawn)?;
    }
    root.present().map_err(undrawn)?;
    Ok(Some(file.to_owned()))
}

/// CPU per delivery over the size of the room.
fn growth(book: &Book, folder: &Path, file: &str) -> io::Result<Option<String>> {
    let line = |server: &str| -> Vec<(f64, f64)> {
        let points = SIZES
            .iter()
            .filter_map(|(workload, members)| Some((*members as f64, book.cpu(workload, server).ok()? / 1e3)));
        points.collect()
    };
    let lines = [(COMMITCAST, line(COMMITCAST)), (FLOOR, line(FLOOR))];
    let most = lines.iter().flat_map(|(_, points)| points).map(|(_, cost)| *cost).fold(0.0, f64::max);
    if most == 0.0 {
        return Ok(None);
    }
    let path = folder.join(file);
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(undrawn)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("server CPU per delivery by members of the room, µs", ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d((8.0..13_000.0).log_scale(), 0.0..most * 1.2)
        .map_err(undrawn)?;
    chart.configure_mesh().max_light_lines(0).x_label_formatter(&|value| short(*value)).draw().map_err(undrawn)?;
    for (server, points) in lines {
        let style = colour(server).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.clone(), style))
            .map_err(undrawn)?
            .label(server)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart
            .draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour(server).filled())))
            .map_err(undrawn)?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw().map_err(undrawn)?;
    root.present().map_err(undrawn)?;
    Ok(Some(file.to_owned()))
}

fn short(value: f64) -> String {
    match value {
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small => format!("{small:.2}"),
    }
}

fn undrawn(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("a picture could not be drawn: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::figures::Figures;

    #[test]
    fn what_was_measured_is_drawn_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("bench-pictures-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let cost = |workload: &str, server: &str, cpu| Figures {
            workload: workload.to_owned(),
            server: server.to_owned(),
            cpu_nanos: Some(cpu),
            ..Figures::default()
        };
        let figures = vec![
            cost("ping", COMMITCAST, 7_000.0),
            cost("ping", "bun", 7_500.0),
            cost("fanout-10", COMMITCAST, 9_000.0),
            cost("fanout", COMMITCAST, 7_000.0),
        ];
        let drawn = draw(&Book { figures, ..Book::default() }, &folder).unwrap();
        assert_eq!(drawn, ["ping.svg", "fanout.svg", "growth.svg"]);
        let picture = std::fs::read_to_string(folder.join("ping.svg")).unwrap();
        assert!(picture.contains("commitcast") && picture.contains("7.50"), "{picture}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
