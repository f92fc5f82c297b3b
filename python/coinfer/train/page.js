// Draws the figures of a training report from the facts embedded in the page; colours follow the theme.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("facts").textContent).figures;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const coloured = (value) => {
    if (typeof value === "string" && value.startsWith("--")) return css(value);
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
    return value;
  };
  function draw() {
    const family = getComputedStyle(document.body).fontFamily;
    for (const [id, figure] of Object.entries(figures)) {
      const element = document.getElementById(`plot-${id}`);
      if (!element) continue;
      const axis = {
        gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, automargin: true, fixedrange: true, ticks: "",
        tickfont: { family, size: 12, color: css("--faint") },
      };
      const title = (text) => ({ text, standoff: 8, font: { family, size: 12.5, color: css("--soft") } });
      const { xaxis = {}, yaxis = {}, ...rest } = figure.layout;
      Plotly.react(element, coloured(figure.traces), {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 14, t: 8, b: 44 }, dragmode: false,
        font: { family, size: 12.5, color: css("--soft") }, showlegend: true, barmode: "group", bargap: 0.3,
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { family, size: 12.5, color: css("--soft") } },
        hoverlabel: { bgcolor: css("--card"), bordercolor: css("--faint"), font: { family, size: 13, color: css("--ink") }, namelength: -1 },
        ...coloured(rest), xaxis: { ...axis, ...xaxis, title: title(xaxis.title || "") }, yaxis: { ...axis, ...yaxis, title: title(yaxis.title || "") },
      }, { displayModeBar: false, responsive: false });
    }
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; figures && Object.keys(figures).forEach((id) => { const e = document.getElementById(`plot-${id}`); if (e) Plotly.Plots.resize(e); }); } });
})();
