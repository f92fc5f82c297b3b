// Draws the figures of a load report: one line per strategy over the rate of requests. Colours are CSS variables, read again
// whenever the theme changes.
"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const font = (size, colour = "--soft") => ({ family: getComputedStyle(document.body).fontFamily, size, color: css(colour) });
  const config = { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false, showTips: false };
  const colour = (i) => css(`--c${i % 6}`);
  const dash = (i) => ["solid", "7,3", "2,3"][Math.floor(i / 6) % 3];

  function layout(title, axis) {
    const common = {
      gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, tickfont: font(12, "--faint"), automargin: true, fixedrange: true,
    };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: font(12.5), showlegend: true, dragmode: false, hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: font(12.5), itemclick: false, itemdoubleclick: false },
      margin: { l: 54, r: 16, t: 12, b: 44 },
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--faint"), font: font(13, "--ink"), align: "left", namelength: -1 },
      xaxis: { ...common, title: { text: "requests per second", font: font(12.5), standoff: 8 }, rangemode: "tozero" },
      yaxis: { ...common, title: { text: title, font: font(12.5), standoff: 8 }, ...axis },
    };
  }

  function ticks(low, high) {
    const all = [];
    for (let decade = -3; decade < 9; decade++) for (const m of [1, 2, 5]) all.push(m * 10 ** decade);
    const values = all.filter((v) => v >= low * 0.9 && v <= high * 1.1);
    const kept = values.length > 10 ? values.filter((v) => /^1/.test(String(v)) || /^0\.0*1/.test(String(v))) : values;
    return { tickmode: "array", tickvals: kept, ticktext: kept.map((v) => (v >= 1000 ? `${v / 1000} s` : `${+v.toPrecision(3)}`)) };
  }

  function draw() {
    const latency = [], goodput = [];
    facts.strategies.forEach((s, i) => {
      const hover = s.points.map((p) => `${p.place} is offered ${(100 * p.offered).toFixed(0)} % of what it can do`);
      const line = { color: colour(i), width: 2.2, dash: dash(i) };
      const x = s.points.map((p) => p.rate);
      const symbol = s.points.map((p) => (p.offered >= 1 ? "x" : "circle"));
      latency.push({
        x, y: s.points.map((p) => p.p50), mode: "lines", line: { ...line, width: 1.2 }, opacity: 0.55, showlegend: false, hoverinfo: "skip",
      }, {
        x, y: s.points.map((p) => p.p99), mode: "lines+markers", name: s.name, line, marker: { color: colour(i), symbol, size: 8 }, customdata: hover,
        hovertemplate: `<b>${s.label}</b><br>%{x:,.0f} per second: p99 %{y:,.1f} ms<br>%{customdata}<extra></extra>`,
      });
      goodput.push({
        x, y: s.points.map((p) => p.good), mode: "lines+markers", name: s.name, line, marker: { color: colour(i), symbol, size: 8 }, customdata: hover,
        hovertemplate: `<b>${s.label}</b><br>%{x:,.0f} per second: %{y:.1%}<br>%{customdata}<extra></extra>`,
      });
    });
    const all = facts.strategies.flatMap((s) => s.points.flatMap((p) => [p.p50, p.p99])).filter((v) => v > 0);
    Plotly.react("plot-latency", latency, layout("ms", { type: "log", ...ticks(Math.min(...all), Math.max(...all)) }), config);
    if (document.getElementById("plot-goodput")) Plotly.react("plot-goodput", goodput, layout("", { tickformat: ".0%", rangemode: "normal" }), config);
    document.querySelectorAll(".plot").forEach((gd) => Plotly.Plots.resize(gd));
    document.documentElement.dataset.drawn = "true";
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let timer = 0;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(draw, 120); });
})();
