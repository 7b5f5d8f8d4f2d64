const CORNER = 6; // radius of a wire's bends, in hundredths of an inch, as all lengths of networks are

// Draws a network: on paper of its own, since its colours are those of the paper's figures.
function drawNetwork(number, title) {
  const network = data.networks[number], [width, height] = network.size;
  const svg = make('svg:svg', { viewBox: `0 0 ${width} ${height}`, width: 1.05 * width, role: 'img', class: 'network',
    'aria-label': `${title}: ${network.layers.length} layers, listed below` });
  for (const [colour, label, left, top, right, bottom] of network.panels) {
    svg.append(make('svg:rect', { x: left, y: top, width: right - left, height: bottom - top, rx: 8, fill: data.colours[colour], stroke: '#C9C9C9' }),
      make('svg:text', { x: left + 8, y: top + 14, class: 'small' }, label));
  }
  for (const [colour, ...points] of network.wires) drawWire(svg, data.colours[colour], points);
  for (const [colour, x, y] of network.dots) svg.append(make('svg:circle', { cx: x, cy: y, r: 2.4, fill: data.colours[colour] }));
  for (const [x, y, look] of network.boxes) {
    const { label, face, edge } = data.looks[look];
    svg.append(make('svg:rect', { x, y, width: 78, height: 42, rx: 5, fill: face, stroke: edge, class: 'layer' }),
      ...label.map((line, place) => make('svg:text', { x: x + 39, y: y + (label.length > 1 ? 18 + 15 * place : 25),
        'text-anchor': 'middle', class: place ? 'small' : null }, line)));
  }
  const paper = make('div', { class: 'paper scroll', tabindex: 0, role: 'region', 'aria-label': title }, svg, networkLegend(network));
  return [paper, layerList(network)];
}

function drawWire(svg, colour, points) {
  const [x, y] = points.slice(-2);
  let path = `M${points[0]},${points[1]}`;
  for (let place = 2; place < points.length - 2; place += 2) {
    const [before, bend, after] = [place - 2, place, place + 2].map((start) => points.slice(start, start + 2));
    path += `L${towards(bend, before)}Q${bend} ${towards(bend, after)}`;
  }
  svg.append(make('svg:path', { d: `${path}L${x - 4},${y}`, fill: 'none', stroke: colour, 'stroke-width': 1.6 }),
    make('svg:path', { d: `M${x},${y}l-7,-3v6z`, fill: colour }));
}

// The point a bend's radius from one point on the way to another, at most half of the way.
function towards([x, y], [otherX, otherY]) {
  const distance = Math.abs(otherX - x) + Math.abs(otherY - y), part = Math.min(CORNER, distance / 2) / distance;
  return [x + part * (otherX - x), y + part * (otherY - y)];
}

function networkLegend(network) {
  const looks = [...new Set(network.boxes.map((box) => box[2]))].map((look) => data.looks[look]).filter((look) => look.legend);
  const named = looks.filter((look, place) => looks.findIndex((other) => other.legend === look.legend) === place);
  return make('ul', { class: 'legend' }, named.map(({ legend, face, edge }) => make('li', {},
    make('svg:svg', { width: 20, height: 14, 'aria-hidden': 'true' }, make('svg:rect', { x: 1, y: 1, width: 18, height: 12, rx: 3, fill: face, stroke: edge })), legend)));
}

// The same in words.
function layerList({ layers }) {
  const name = (input) => (input < 0 ? 'image' : input);
  const rows = layers.map(([text, inputs, shape], place) => make('tr', {}, make('th', { scope: 'row' }, String(place)),
    make('td', { class: 'text' }, text), make('td', { class: 'text' }, inputs.map(name).join(', ')), make('td', {}, shape)));
  const heads = ['layer', 'what', 'reads', 'output'].map((head) => make('th', { scope: 'col' }, head));
  return make('details', {}, make('summary', {}, `Its ${layers.length} ${layers.length === 1 ? 'layer' : 'layers'} in words`),
    make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Layers' },
      make('table', {}, make('thead', {}, make('tr', {}, heads)), make('tbody', {}, rows))),
    make('p', { class: 'note' }, 'Global average pooling and a classifier follow the last layer.'));
}
