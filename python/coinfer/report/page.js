// Draws the figures of a coinfer report from the facts embedded in the page. Colours are CSS variables, read again
// whenever the theme changes; everything is drawn again when its width changes. No figure asks the network for anything.
"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const strategies = facts.strategies;
  const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
  const narrow = (element) => element.clientWidth < 560;

  // Colours ----------------------------------------------------------------------------------------------------------

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function mix(from, to, t) {
    const part = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
    return `#${[0, 1, 2].map((i) => Math.round(part(from, i) * (1 - t) + part(to, i) * t).toString(16).padStart(2, "0")).join("")}`;
  }
  const ramp = (i, n) => mix(css("--ramp-from"), css("--ramp-to"), n > 1 ? i / (n - 1) : 0.5);

  // A strategy that asks one model is grey and square; one that cooperates has a colour and is round; the oracle, which
  // nobody can run, is a hollow star in ink. Kinds differ in shape and dash too, so that colour carries nothing alone.
  const counts = { single: 0, cooperative: 0, oracle: 0 };
  const styles = strategies.map((s) => {
    const i = counts[s.kind]++;
    if (s.kind === "oracle") return { colour: "--ink", symbol: "star-open", dash: "dashdot", size: 12 };
    if (s.kind === "single") return { colour: "--g0", symbol: "square", dash: ["2,3", "5,3", "9,3", "12,3,2,3"][i % 4], size: 8 };
    return { colour: `--c${i % 6}`, symbol: ["circle", "diamond", "triangle-up"][Math.floor(i / 6) % 3], dash: ["solid", "7,2", "3,2"][Math.floor(i / 6) % 3], size: 11 };
  });

  function swatch(i) {
    const { colour, symbol } = styles[i];
    const shape = {
      square: '<rect x="2.5" y="2.5" width="8" height="8" rx="1" fill="C"/>',
      circle: '<circle cx="6.5" cy="6.5" r="5" fill="C"/>',
      diamond: '<path d="M6.5 1 12 6.5 6.5 12 1 6.5Z" fill="C"/>',
      "triangle-up": '<path d="M6.5 1.5 12 11.5H1Z" fill="C"/>',
      "star-open": '<path d="M6.5 1l1.6 3.7 4 .4-3 2.7.9 4-3.5-2.1L3 11.8l.9-4-3-2.7 4-.4Z" fill="none" stroke="C" stroke-width="1.2"/>',
    }[symbol];
    return `<svg width="13" height="13" viewBox="0 0 13 13" aria-hidden="true">${shape.replaceAll("C", `var(${colour})`)}</svg>`;
  }

  // What all plots share ---------------------------------------------------------------------------------------------

  const font = (size, colour = "--soft") => ({
    family: getComputedStyle(document.body).fontFamily,
    size,
    color: css(colour),
  });
  const config = { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false, showTips: false };

  function layout(extra) {
    const axis = {
      gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line"), zeroline: false,
      tickfont: font(12, "--faint"), ticks: "", automargin: true, fixedrange: true, title: { font: font(12.5), standoff: 8 },
    };
    const { xaxis = {}, yaxis = {}, ...rest } = extra;
    const merge = (given) => ({ ...axis, ...given, title: { ...axis.title, text: given.title || "" } });
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: font(12.5), showlegend: false,
      margin: { l: 48, r: 14, t: 12, b: 42 }, dragmode: false, hovermode: "closest",
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--faint"), font: font(13, "--ink"), align: "left", namelength: -1 },
      xaxis: merge(xaxis), yaxis: merge(yaxis), ...rest,
    };
  }

  const canvas = document.createElement("canvas").getContext("2d");
  function textWidth(text, size) {
    canvas.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
    return canvas.measureText(text).width;
  }

  // Round ticks at 1, 2 and 5 for logarithmic axes: Plotly's own leave most decades without a number.
  function logTicks(low, high) {
    const all = [];
    for (let decade = -6; decade < 9; decade++) for (const m of [1, 2, 5]) all.push(m * 10 ** decade);
    const values = all.filter((v) => v >= low * 0.999 && v <= high * 1.001);
    return { tickmode: "array", tickvals: values, ticktext: values.map((v) => `${+v.toPrecision(3)}`) };
  }

  // Accuracies near 100 % differ by their errors: 99 % and 99.5 % are as far apart as 90 % and 95 %. Where the errors
  // shown span a factor of four or more, the axis is logarithmic in them, and its ticks are written as accuracies.
  function accuracyScale(accuracies) {
    const floor = Math.min(...accuracies.map((a) => 1 / (4 * a.n_effective)));
    const errors = accuracies.map((a) => Math.max(1 - a.value, floor));
    if (Math.max(...errors) / Math.min(...errors) < 4) return { at: (share) => share, ticks: { tickformat: ".3~%", nticks: 8 } };
    const at = (share) => -Math.log10(Math.max(1 - share, floor));
    const steps = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99999, 1 - 1e-6];
    const written = [...steps.filter((s) => 1 - s > 1.6 * floor), 1];
    return { at, ticks: { tickmode: "array", tickvals: written.map(at), ticktext: written.map((s) => `${+(100 * s).toFixed(4)}%`) } };
  }

  // Labels beside points: each tries places around its point and takes the one that covers least; three rounds, so that
  // early labels make room for late ones.
  function placeLabels(points, bars, frame, size) {
    const height = size + 4;
    const boxes = points.map((p) => ({ w: textWidth(p.text, size) + 4, h: height, at: null, dx: 0, dy: 0 }));
    const overlap = (a, b) =>
      Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
    const places = [];
    for (const reach of [11, 22, 36, 54])
      for (const [x, y] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -0.8], [1, 0.8], [-1, -0.8], [-1, 0.8]]) places.push([reach, x, y]);
    for (let round = 0; round < 3; round++)
      points.forEach((p, i) => {
        let best = Infinity;
        places.forEach(([reach, x, y], rank) => {
          const dx = x * (reach + boxes[i].w / 2) * (y && x ? 0.96 : 1);
          const dy = y * (reach + (x ? height / 2 : 2));
          const at = [p.x + dx - boxes[i].w / 2, p.y + dy - height / 2, p.x + dx + boxes[i].w / 2, p.y + dy + height / 2];
          let cost = 6 * rank;
          const inside = overlap(at, [0, 0, frame.w, frame.h]);
          cost += 8 * ((at[2] - at[0]) * (at[3] - at[1]) - inside);
          boxes.forEach((b, j) => { if (j !== i && b.at) cost += 6 * overlap(at, b.at); });
          points.forEach((q) => { cost += 5 * overlap(at, [q.x - 8, q.y - 8, q.x + 8, q.y + 8]); });
          bars.forEach((b) => { cost += 3 * overlap(at, [b.x - 1.5, b.top - 1, b.right + 1.5, b.bottom + 1]); });
          if (cost < best) { best = cost; boxes[i] = { ...boxes[i], at, dx, dy, far: reach > 22 }; }
        });
      });
    return boxes;
  }

  // The figures ------------------------------------------------------------------------------------------------------

  let front = null; // the strategy brought to the front, or null for all alike

  function scatter(id, cost, title, frontKey, hoverCost) {
    const gd = document.getElementById(id);
    if (!gd) return;
    const shown = strategies.map((s, i) => ({ s, i, x: cost(s) })).filter(({ s }) => s.accuracy);
    const xs = shown.map((d) => d.x), positive = xs.filter((x) => x > 0);
    const log = positive.length === xs.length && Math.max(...xs) / Math.min(...xs) > 25;
    const lows = shown.map(({ s }) => s.accuracy.low), highs = shown.map(({ s }) => s.accuracy.high);
    const scale = accuracyScale(shown.map(({ s }) => s.accuracy));
    const ends = [scale.at(Math.min(...lows)), scale.at(Math.max(...highs))];
    const pad = 0.07 * (ends[1] - ends[0]) || 0.01;
    const line = shown.filter(({ s }) => s[frontKey] && s.kind !== "oracle").sort((a, b) => a.x - b.x);
    const traces = [{
      x: line.map((d) => d.x), y: line.map((d) => scale.at(d.s.accuracy.value)), mode: "lines", hoverinfo: "skip",
      line: { color: css("--faint"), width: 1, shape: "hv", dash: "2,3" },
    }];
    for (const { s, i, x } of shown) {
      const colour = css(styles[i].colour);
      traces.push({
        x: [x], y: [scale.at(s.accuracy.value)], mode: "markers", name: s.name, strategy: i,
        opacity: front === null || front === i ? 1 : 0.28,
        marker: { color: colour, symbol: styles[i].symbol, size: styles[i].size, line: { color: s.kind === "oracle" ? colour : css("--card"), width: 1.3 } },
        error_y: { type: "data", symmetric: false, array: [scale.at(s.accuracy.high) - scale.at(s.accuracy.value)], arrayminus: [scale.at(s.accuracy.value) - scale.at(s.accuracy.low)], color: colour, thickness: 1, width: 0 },
        hovertemplate: `<b>${escape(s.name)}</b><br>right ${percent(s.accuracy.value, 1)} (${percent(s.accuracy.low, 1)} to ${percent(s.accuracy.high, 1)})<br>${hoverCost(s)}<extra></extra>`,
      });
    }
    const span = Math.max(...xs) - Math.min(0, ...xs) || 1;
    const range = log
      ? [Math.log10(Math.min(...xs) / 1.25), Math.log10(Math.max(...xs) * 1.25)]
      : [Math.min(...xs) - 0.06 * span, Math.max(...xs) + 0.09 * span];
    const size = narrow(gd) ? 11.5 : 12.5;
    Plotly.react(gd, traces, layout({
      xaxis: { title, type: log ? "log" : "linear", range, ...(log ? logTicks(10 ** range[0], 10 ** range[1]) : { nticks: narrow(gd) ? 5 : 8 }) },
      yaxis: { range: [ends[0] - pad, ends[1] + pad], ...scale.ticks },
    }), config);
    const { xaxis, yaxis } = gd._fullLayout;
    const px = (x) => xaxis.d2p(x), py = (y) => yaxis.d2p(y);
    const points = shown.map(({ s, x }) => ({ x: px(x), y: py(scale.at(s.accuracy.value)), text: s.kind === "oracle" ? `${s.name} (bound)` : s.name }));
    const bars = shown.map(({ s, x }) => ({ x: px(x), right: px(x), top: py(scale.at(s.accuracy.high)), bottom: py(scale.at(s.accuracy.low)) }));
    line.forEach((d, k) => {
      if (k === 0) return;
      const before = line[k - 1], y = py(scale.at(before.s.accuracy.value));
      bars.push({ x: px(before.x), right: px(d.x), top: y, bottom: y });
      bars.push({ x: px(d.x), right: px(d.x), top: py(scale.at(d.s.accuracy.value)), bottom: y });
    });
    const boxes = placeLabels(points, bars, { w: xaxis._length, h: yaxis._length }, size);
    Plotly.relayout(gd, {
      annotations: boxes.map((b, k) => ({
        x: log ? Math.log10(shown[k].x) : shown[k].x, y: scale.at(shown[k].s.accuracy.value), text: escape(points[k].text),
        font: { ...font(size, "--ink"), color: css(shown[k].s.kind === "single" ? "--soft" : styles[shown[k].i].colour) },
        opacity: front === null || front === shown[k].i ? 1 : 0.35, xanchor: "center", yanchor: "middle",
        ...(b.far
          ? { showarrow: true, ax: b.dx, ay: b.dy, arrowhead: 0, arrowwidth: 0.7, arrowcolor: css("--faint"), standoff: 5 }
          : { showarrow: false, xshift: b.dx, yshift: -b.dy }),
      })),
    });
  }

  function latency() {
    const gd = document.getElementById("plot-latency");
    if (!gd) return;
    const until = facts.quantiles.length;
    const shown = strategies.map((s, i) => ({ s, i, x: s.latency_ms_quantiles.slice(0, until) })).filter((d) => d.x.every(Number.isFinite));
    const lows = shown.map((d) => d.x[0]), highs = shown.map((d) => d.x[until - 1]);
    const low = Math.min(...lows), high = Math.max(...highs, 1e-3);
    const log = low > 0 && high / low > 12 && high / low < 5000;
    const order = [...shown].sort((a, b) => (a.i === front) - (b.i === front) || (b.s.kind === "single") - (a.s.kind === "single"));
    Plotly.react(gd, order.map(({ s, i, x }) => ({
      x, y: facts.quantiles.slice(0, until), mode: "lines", name: s.name, opacity: front === null || front === i ? 1 : 0.2,
      line: { color: css(styles[i].colour), width: s.kind === "cooperative" ? 2.4 : 1.5, dash: styles[i].dash, shape: "hv" },
      hovertemplate: `<b>${escape(s.name)}</b><br>%{y:.1%} within %{x:.1f} ms<extra></extra>`,
    })), layout({
      xaxis: { title: "latency, ms", type: log ? "log" : "linear", range: log ? [Math.log10(low * 0.9), Math.log10(high * 1.08)] : [0, high * 1.04], ...(log ? logTicks(low * 0.9, high * 1.08) : {}) },
      yaxis: { tickformat: ".0%", range: [-0.012, 1.02], dtick: 0.25 },
    }), config);
  }

  function endLabels(gd, ends, size) {
    // Labels at the right end of lines, pushed apart vertically, order kept.
    const axis = gd._fullLayout.yaxis;
    const sorted = ends.map((e, k) => ({ ...e, k, at: axis.d2p(e.y) })).sort((a, b) => a.at - b.at);
    const gap = size + 4;
    for (let round = 0; round < 60; round++)
      for (let j = 1; j < sorted.length; j++) {
        const short = gap - (sorted[j].at - sorted[j - 1].at);
        if (short > 0) { sorted[j - 1].at -= short / 2; sorted[j].at += short / 2; }
      }
    const sink = Math.max(0, ...sorted.map((e) => e.at + gap / 2 - axis._length));
    return sorted.map((e) => ({
      xref: "paper", x: 1, xanchor: "left", xshift: 6, y: e.y, yshift: axis.d2p(e.y) - (e.at - sink), yanchor: "middle",
      text: escape(e.text), font: { ...font(size), color: e.colour }, showarrow: false,
    }));
  }

  function risk() {
    const gd = document.getElementById("plot-risk");
    if (!gd) return;
    const models = facts.models.filter((m) => m.risk_coverage);
    const n = facts.models.length;
    const colour = (m) => ramp(facts.models.indexOf(m), n);
    const high = Math.max(...models.map((m) => Math.max(...m.risk_coverage.risk)), 0.01);
    const size = narrow(gd) ? 11.5 : 12.5;
    const margin = 16 + Math.max(...models.map((m) => textWidth(m.name, size)));
    Plotly.react(gd, models.map((m) => ({
      x: m.risk_coverage.coverage, y: m.risk_coverage.risk, customdata: m.risk_coverage.threshold,
      mode: m.risk_coverage.coverage.length > 1 ? "lines" : "markers", name: m.name, line: { color: colour(m), width: 2.2, shape: "linear" }, marker: { color: colour(m), size: 8 },
      hovertemplate: `<b>${escape(m.name)}</b><br>%{y:.1%} wrong among the surest %{x:.0%}<br>confidence at least %{customdata:.3f}<extra></extra>`,
    })), layout({
      margin: { l: 48, r: margin, t: 12, b: 42 },
      xaxis: { title: "share of samples answered, surest first", tickformat: ".0%", range: [-0.01, 1.0] },
      yaxis: { title: "", tickformat: high > 0.05 ? ".0%" : ".1%", range: [-0.015 * high, 1.06 * high], nticks: 6 },
    }), config);
    Plotly.relayout(gd, { annotations: endLabels(gd, models.map((m) => ({ y: m.risk_coverage.risk.at(-1), text: m.name, colour: mix(colour(m), css("--ink"), 0.45) })), size) });
  }

  function calibration() {
    facts.models.forEach((m, k) => {
      const gd = document.getElementById(`plot-reliability-${k}`);
      if (!gd || !m.reliability) return;
      const r = m.reliability;
      const colour = ramp(facts.models.length > 1 ? k : 0.5, facts.models.length);
      const biggest = Math.max(...r.share);
      Plotly.react(gd, [
        { x: [0, 1], y: [0, 1], mode: "lines", hoverinfo: "skip", line: { color: css("--faint"), width: 1, dash: "2,3" } },
        { x: r.confidence, y: r.share.map((s) => (0.22 * s) / biggest), type: "bar", width: 0.045, hoverinfo: "skip", marker: { color: css("--line") } },
        {
          x: r.confidence, y: r.accuracy, mode: "lines+markers", line: { color: colour, width: 1.6 },
          cliponaxis: false, marker: { color: colour, size: r.share.map((s) => 4.5 + 4.5 * Math.sqrt(s / biggest)), opacity: 1, line: { width: 0 } },
          error_y: { type: "data", symmetric: false, array: r.high.map((h, i) => h - r.accuracy[i]), arrayminus: r.low.map((l, i) => r.accuracy[i] - l), thickness: 0.9, width: 0, color: colour },
          customdata: r.share, hovertemplate: "says %{x:.0%}, right %{y:.0%}<br>%{customdata:.1%} of the samples<extra></extra>",
        },
      ], layout({
        margin: { l: 40, r: 18, t: 10, b: 34 },
        xaxis: { range: [-0.02, 1.03], tickvals: [0, 0.5, 1], tickformat: ".0%", ticklabeloverflow: "allow", title: narrow(document.body) ? "" : "confidence" },
        yaxis: { range: [-0.02, 1.05], tickvals: [0, 0.5, 1], tickformat: ".0%", automargin: false },
      }), config);
    });
  }

  // The network: devices left and cloud right, or devices below and cloud above where the page is narrow.
  let drawn = Math.max(0, strategies.findIndex((s) => s.name === facts.shown_first));

  function network() {
    const box = document.getElementById("network");
    if (!box) return;
    const s = strategies[drawn], tall = narrow(box), width = Math.max(box.clientWidth, 260);
    const crowd = tall ? 5 : 9; // beyond it, a tier is drawn as one node that stands for all
    const tiers = facts.tiers.map((tier, t) => {
      const members = facts.nodes.map((n, i) => ({ ...n, i })).filter((n) => n.tier === t);
      if (members.length <= crowd) return members.map((n) => ({ label: n.name, models: n.models, title: `${n.name}: ${n.detail}`, of: [n.i] }));
      return [{ label: `${members.length} nodes`, models: [...new Set(members.flatMap((n) => n.models))], title: members.map((n) => n.name).join(", "), of: members.map((n) => n.i) }];
    });
    const most = Math.max(...tiers.map((t) => t.length));
    const rMax = tall ? 34 : 44;
    const pitch = tall ? 136 : 94;
    const height = tall ? 124 + pitch * (tiers.length - 1) : 74 + pitch * Math.max(most, 1.7);
    const step = tall ? pitch : width / tiers.length;
    const share = (node) => node.of.reduce((sum, i) => sum + (s.settled_by_node[facts.nodes[i].name] || 0), 0);
    const place = new Map();
    tiers.forEach((tier, t) => tier.forEach((node, k) => {
      const along = tall ? (width * (k + 0.5)) / tier.length : 56 + ((height - 74) * (k + 0.42)) / tier.length;
      const across = tall ? height - 54 - t * step : step * (t + 0.5);
      node.x = tall ? along : across;
      node.y = tall ? across : along;
      node.t = t;
      node.of.forEach((i) => place.set(i, node));
    }));
    const parts = [];
    const text = (x, y, content, attributes = "") => parts.push(`<text x="${x}" y="${y}" ${attributes}>${escape(content)}</text>`);
    const drawnLinks = new Map();
    for (const link of facts.links) {
      const a = place.get(link.a), b = place.get(link.b);
      if (a === b) continue;
      const key = `${a.x},${a.y},${b.x},${b.y}`;
      if (!drawnLinks.has(key)) drawnLinks.set(key, { a, b, delays: [], details: [] });
      drawnLinks.get(key).delays.push(link.delay_ms);
      drawnLinks.get(key).details.push(link.detail);
    }
    const gaps = new Map(); // delays of links between neighbouring tiers, said once per gap
    for (const { a, b, delays, details } of drawnLinks.values()) {
      const low = Math.min(a.t, b.t), apart = Math.abs(a.t - b.t);
      if (apart === 1) gaps.set(low, [...(gaps.get(low) || []), ...delays]);
      const bend = apart === 1 ? 0 : 46;
      const mx = (a.x + b.x) / 2 + (tall || apart === 0 ? bend : 0), my = (a.y + b.y) / 2 - (tall || apart === 0 ? 0 : bend);
      const d = bend ? `M${a.x} ${a.y}Q${mx} ${my} ${b.x} ${b.y}` : `M${a.x} ${a.y}L${b.x} ${b.y}`;
      parts.push(`<path class="link" d="${d}" fill="none" stroke="var(--faint)" stroke-opacity="0.55" stroke-width="1.2"><title>${escape(details.slice(0, 6).join("\n"))}</title></path>`);
      if (bend) text((a.x + 2 * mx + b.x) / 4 + 4, (a.y + 2 * my + b.y) / 4 - 4, span(delays), 'font-size="11.5" fill="var(--faint)"');
    }
    function span(delays) {
      const low = Math.min(...delays), high = Math.max(...delays), f = (v) => `${+v.toPrecision(3)}`;
      return low === high ? `${f(low)} ms` : `${f(low)} to ${f(high)} ms`;
    }
    facts.tiers.forEach((tier, t) => {
      const label = `${tier.name}${tier.nodes > 1 ? ` × ${tier.nodes}` : ""}`;
      const sum = percent(s.settled_by_tier[t], s.settled_by_tier[t] > 0 && s.settled_by_tier[t] < 0.1 ? 1 : 0);
      if (!tall) {
        text(step * (t + 0.5), 20, label, 'font-size="14" font-weight="600" fill="var(--ink)" text-anchor="middle"');
        text(step * (t + 0.5), 38, sum, 'font-size="13" fill="var(--soft)" text-anchor="middle"');
      }
      if (gaps.has(t)) {
        if (tall) text(width / 2 + 8, height - 54 - (t + 0.5) * step + 10, span(gaps.get(t)), 'font-size="12" fill="var(--faint)" stroke="var(--card)" stroke-width="5" paint-order="stroke"');
        else text(step * (t + 1), 20, span(gaps.get(t)), 'font-size="12.5" fill="var(--faint)" text-anchor="middle"');
      }
    });
    tiers.flat().forEach((node) => {
      const part = share(node), r = Math.max(4, rMax * Math.sqrt(part));
      const colour = ramp(node.t, facts.tiers.length);
      parts.push(`<circle class="node" cx="${node.x}" cy="${node.y}" r="${r}" fill="${part > 0 ? colour : "var(--card)"}" stroke="${part > 0 ? "var(--card)" : "var(--faint)"}" stroke-width="${part > 0 ? 2 : 1.3}"><title>${escape(node.title)}</title></circle>`);
      const value = percent(part, part > 0 && part < 0.1 ? 1 : 0);
      const halo = 'text-anchor="middle" stroke="var(--card)" stroke-width="4" stroke-linejoin="round" paint-order="stroke"';
      const below = node.y + Math.max(r, 7) + 16, size = tall ? 12 : 13;
      text(node.x, below, tall ? node.label : `${node.label} · ${value}`, `font-size="${size}" fill="var(--ink)" ${halo}`);
      const under = tall ? `${value} · ${node.models.join(", ")}` : node.models.join(", ");
      const room = tall ? width / tiers[node.t].length - 4 : step - 8;
      text(node.x, below + 15, textWidth(under, size) < room ? under : tall ? value : "", `font-size="${size - 0.5}" fill="var(--faint)" ${halo}`);
    });
    box.innerHTML = `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escape(`${s.name}: ${facts.tiers.map((tier, t) => `${tier.name} ${percent(s.settled_by_tier[t], 1)}`).join(", ")}`)}">${parts.join("")}</svg>`;
    const rest = 1 - s.settled_by_tier.reduce((a, b) => a + b, 0);
    document.getElementById("network-caption").textContent =
      `${s.rule} · ${s.stages.toFixed(2)} ${Math.abs(s.stages - 1) < 0.005 ? "model" : "models"} consulted per request on average` +
      (rest > 5e-7 ? ` · ${percent(rest, rest < 0.01 ? 3 : 1)} of requests were settled nowhere (expired, rejected or failed)` : "") + ".";
  }

  // Chips ------------------------------------------------------------------------------------------------------------

  function escape(text) {
    return String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  }

  function chips() {
    for (const row of document.querySelectorAll("[data-chips]")) {
      const toNetwork = row.dataset.chips === "network";
      row.replaceChildren(...strategies.map((s, i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.innerHTML = `${toNetwork ? swatch(i) : dashSwatch(i)}<span>${escape(s.name)}</span>`;
        button.setAttribute("aria-pressed", String(toNetwork ? i === drawn : i === front));
        button.addEventListener("click", () => {
          if (toNetwork) drawn = i;
          else front = front === i ? null : i;
          press(row, toNetwork ? drawn : front);
          if (toNetwork) network();
          else { costs(); latency(); }
        });
        return button;
      }));
    }
    document.querySelectorAll("[data-swatch]").forEach((cell) => { cell.innerHTML = swatch(Number(cell.dataset.swatch)); });
  }
  const press = (row, chosen) => [...row.children].forEach((b, i) => b.setAttribute("aria-pressed", String(i === chosen)));

  function dashSwatch(i) {
    const { colour, dash } = styles[i];
    const pattern = { solid: "", dashdot: "5 2 1.5 2" }[dash] ?? dash.replaceAll(",", " ");
    return `<svg width="22" height="10" viewBox="0 0 22 10" aria-hidden="true"><path d="M0 5H22" stroke="var(${colour})" stroke-width="2.2" stroke-dasharray="${pattern}"/></svg>`;
  }

  // Start, and again on a change of theme or width --------------------------------------------------------------------

  function costs() {
    const ms = (s) => `mean ${s.latency_ms.mean.toFixed(1)} ms, p99 ${s.latency_ms.p99.toFixed(1)} ms`;
    scatter("plot-latency-accuracy", (s) => s.latency_ms.mean, "mean latency, ms", "fast_and_right", ms);
    scatter("plot-price-accuracy", (s) => s.price_usd_per_1000, "price of 1,000 requests, USD", "cheap_and_right", (s) => `${+s.price_usd_per_1000.toPrecision(3)} USD per 1,000 requests`);
  }

  function draw() {
    document.querySelectorAll("[data-tier]").forEach((bar) => { bar.style.background = ramp(Number(bar.dataset.tier), facts.tiers.length); });
    costs();
    latency();
    network();
    risk();
    calibration();
    document.querySelectorAll(".plot").forEach((gd) => Plotly.Plots.resize(gd));
    document.documentElement.dataset.drawn = "true";
  }

  chips();
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = document.body.clientWidth, timer = 0;
  addEventListener("resize", () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    clearTimeout(timer);
    timer = setTimeout(draw, 120);
  });
})();
