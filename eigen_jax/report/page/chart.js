// The marks of points, by the name of what they stand for; a shape each, since colours alone do not tell.
const SHAPES = {
  dot: (x, y) => make('svg:circle', { cx: x, cy: y, r: 3.5 }),
  large: (x, y) => make('svg:circle', { cx: x, cy: y, r: 5 }),
  ring: (x, y) => make('svg:circle', { cx: x, cy: y, r: 3, class: 'hollow' }),
  cross: (x, y) => make('svg:path', { d: `M${x - 3.5},${y - 3.5}l7,7m0,-7l-7,7`, class: 'hollow' }),
  star: (x, y) => make('svg:path', { d: `M${x},${y - 9}l2.6,5.9 6.3,.6 -4.8,4.2 1.4,6.2 -5.5,-3.3 -5.5,3.3 1.4,-6.2 -4.8,-4.2 6.3,-.6z` }),
};

// Draws a chart into a figure, and again whenever its width changes. `describe` gives what is shown:
// x, y: {label, show, log, whole}; lines: {name, colour, points: [[x, y]], step, dash};
// marks: {name, colour, shape, points: [[x, y, text, chosen]]}; bands: [{from, to, name}]; text: for who cannot see it.
function chart(figure, describe) {
  const plot = figure.querySelector('.plot');
  let width = 0;
  const draw = () => {
    width = Math.floor(plot.clientWidth);
    if (width > 0) plot.replaceChildren(...drawChart(describe(), width));
  };
  new ResizeObserver(() => Math.floor(plot.clientWidth) !== width && draw()).observe(plot);
  draw();
  return draw;
}

function drawChart({ x, y, lines = [], marks = [], bands = [], text }, width) {
  const height = Math.min(380, Math.max(250, 0.45 * width)), left = 58, right = 12, top = bands.length ? 26 : 12, bottom = 44;
  const points = [...lines, ...marks].flatMap((each) => each.points);
  if (!points.length) return [make('p', { class: 'note' }, 'There is nothing to show yet.')];
  const across = scale(points.map((point) => point[0]), x, left, width - right);
  const up = scale(points.map((point) => point[1]), y, height - bottom, top);
  const svg = make('svg:svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': text });
  drawBands(svg, bands, across, { top, bottom: height - bottom });
  for (const value of up.ticks) {
    const at = up(value);
    svg.append(make('svg:path', { class: 'grid', d: `M${left},${at}H${width - right}` }),
      make('svg:text', { x: left - 6, y: at + 4, 'text-anchor': 'end' }, y.show(value)));
  }
  for (const value of across.spread(width / 75)) {
    const at = across(value);
    svg.append(make('svg:path', { class: 'grid', d: `M${at},${height - bottom}v4` }),
      make('svg:text', { x: at, y: height - bottom + 17, 'text-anchor': 'middle' }, x.show(value)));
  }
  svg.append(make('svg:path', { class: 'axis', d: `M${left},${top}V${height - bottom}H${width - right}` }),
    make('svg:text', { x: (left + width - right) / 2, y: height - 6, 'text-anchor': 'middle', class: 'label' }, x.label));
  for (const line of lines) {
    svg.append(make('svg:path', { class: `line ${line.colour}`, d: course(line, across, up), 'stroke-dasharray': line.dash }));
  }
  for (const mark of marks) {
    const group = make('svg:g', { class: `mark ${mark.colour}` });
    for (const [atX, atY, title, chosen] of mark.points) {
      const made = SHAPES[mark.shape](across(atX), up(atY));
      if (title) made.append(make('svg:title', {}, title));
      if (chosen) {
        made.addEventListener('click', chosen);
        made.classList.add('clickable');
      }
      group.append(made);
    }
    svg.append(group);
  }
  return [make('p', { class: 'axis-label' }, y.label), svg, legend([...lines, ...marks])];
}

function course({ points, step }, across, up) {
  return points.map(([atX, atY], place) => {
    const [to, height] = [across(atX).toFixed(1), up(atY).toFixed(1)];
    return place === 0 ? `M${to},${height}` : step ? `H${to}V${height}` : `L${to},${height}`;
  }).join('');
}

function drawBands(svg, bands, across, { top, bottom }) {
  bands.forEach(({ from, to, name }, place) => {
    const [start, end] = [across(from), across(to)];
    svg.append(make('svg:rect', { x: start, y: top, width: Math.max(0, end - start), height: bottom - top, class: place % 2 ? 'band odd' : 'band' }));
    if (end - start > 7 * name.length + 8) svg.append(make('svg:text', { x: start + 4, y: top - 8 }, name));
  });
}

// What marks and lines stand for: each name once.
function legend(entries) {
  const named = entries.filter((each, place) => each.name && entries.findIndex((other) => other.name === each.name) === place);
  return make('ul', { class: 'legend' }, named.map((each) => make('li', {}, sample(each), each.name)));
}

function sample({ shape, colour, dash }) {
  const drawn = shape
    ? make('svg:g', { class: `mark ${colour}` }, SHAPES[shape](10, 10))
    : make('svg:path', { class: `line ${colour}`, d: 'M0,10H20', 'stroke-dasharray': dash });
  return make('svg:svg', { width: 20, height: 20, 'aria-hidden': 'true' }, drawn);
}

// A function from values to places between two ends, with round `ticks`, and `spread(n)`: about n of them at most.
function scale(values, { log, whole }, start, end) {
  let [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  if (log && low <= 0) log = false;
  const map = log ? Math.log10 : (value) => value;
  const margin = whole ? 0.5 : 0.04 * (map(high) - map(low)) || (log ? 0.3 : Math.abs(high) * 0.1 || 1);
  low = map(low) - margin, high = map(high) + margin;
  const place = (value) => start + (end - start) * (map(value) - low) / (high - low);
  place.spread = (most) => (log ? logTicks(low, high, most) : roundTicks(low, high, most, whole));
  place.ticks = place.spread(6);
  return place;
}

function roundTicks(low, high, most, whole) {
  const rough = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let tick = Math.ceil(low / step); tick * step <= high; tick += 1) ticks.push(tick * step || 0); // never -0
  return ticks;
}

function logTicks(low, high, most) {
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(low); power <= high; power += 1) {
      ticks.push(...factors.map((each) => each * 10 ** power).filter((each) => Math.log10(each) >= low && Math.log10(each) <= high));
    }
    if (ticks.length <= most && ticks.length > 1) return ticks;
  }
  return roundTicks(low, high, Math.min(most, 3)).map((power) => +(10 ** power).toPrecision(1));
}
