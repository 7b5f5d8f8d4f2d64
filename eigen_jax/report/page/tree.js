const FATES = {
  parent: { colour: 'parent', shape: 'large', text: 'parent of later ones' },
  survived: { colour: 'survived', shape: 'dot', text: 'survived' },
  extinct: { colour: 'extinct', shape: 'ring', text: 'extinct' },
  failed: { colour: 'failed', shape: 'cross', text: 'failed' },
};
const ROW = 24, HEAD = 42, FOLDED = 10; // pixels; children in a column where generations have one or two

// The family tree: who stands in which column and row, the lines between them, and how one moves from one to another.
// `chosen` is told of who is chosen; gives a function that chooses.
function drawTree(plot, individuals, best, chosen) {
  const places = treePlaces(individuals);
  const columns = 1 + Math.max(...places.map(([column]) => column)), rows = 1 + Math.max(...places.map(([, row]) => row));
  const pitch = Math.max(34, Math.min(110, Math.floor((plot.parentElement.clientWidth - 24) / columns)));
  const at = (position) => [24 + places[position][0] * pitch, HEAD + 14 + places[position][1] * ROW];
  const svg = make('svg:svg', { width: 48 + (columns - 1) * pitch, height: HEAD + 14 + rows * ROW, role: 'group', 'aria-label': 'Individuals, by generation' });
  drawHeads(svg, individuals, places, (column) => 24 + column * pitch);
  const lines = svg.appendChild(make('svg:g'));
  const edges = individuals.map((each, position) => each.parents.map((parent) => lines.appendChild(
    make('svg:path', { class: 'edge', d: edge(at(parent), at(position)) }))));
  const nodes = individuals.map((each, position) => node(each, position, at(position), position === best));
  svg.append(...nodes);
  plot.replaceChildren(svg);
  let current = null;
  const choose = (position, focus = false) => {
    if (current !== null) nodes[current].setAttribute('tabindex', -1);
    for (const marked of svg.querySelectorAll('.chosen, .ancestor')) marked.classList.remove('chosen', 'ancestor');
    current = position;
    nodes[position].setAttribute('tabindex', 0);
    nodes[position].classList.add('chosen');
    for (const each of ancestors(individuals, position)) {
      nodes[each].classList.add('ancestor');
      for (const line of edges[each]) lines.appendChild(line).classList.add('ancestor');
    }
    const scrolled = plot.parentElement, x = at(position)[0];
    if (x < scrolled.scrollLeft + 20 || x > scrolled.scrollLeft + scrolled.clientWidth - 20) scrolled.scrollLeft = x - scrolled.clientWidth / 2;
    if (focus) nodes[position].focus({ preventScroll: true });
    chosen(position);
  };
  const find = (event) => event.target.closest('.node')?.dataset.position;
  svg.addEventListener('click', (event) => find(event) !== undefined && choose(+find(event), true));
  svg.addEventListener('keydown', (event) => {
    const to = neighbour(places, current, event.key);
    if (to === undefined) return;
    event.preventDefault();
    choose(to, true);
  });
  return choose;
}

const isByGeneration = (individuals) => individuals.some((each) => each.index >= 2);

// Column and row of each: a column a generation, or, where those have one or two children, FOLDED children a column.
function treePlaces(individuals) {
  if (isByGeneration(individuals)) return individuals.map((each) => [each.generation, each.index]);
  return individuals.map((each, position) => [Math.floor(position / FOLDED), position % FOLDED]);
}

// The phases, and the generations, over their columns; what a phase has no room for is cut.
function drawHeads(svg, individuals, places, left) {
  const begins = individuals.flatMap((each, position) => (position && individuals[position - 1].phase === each.phase ? [] : [position]))
    .filter(() => isByGeneration(individuals));
  begins.forEach((position, place) => {
    const { phase } = individuals[position], x = left(places[position][0]) - 12, next = begins[place + 1];
    const room = next === undefined ? phase.length : Math.floor((left(places[next][0]) - x - 16) / 7.4);
    const shown = room < phase.length ? `${phase.slice(0, Math.max(1, room - 1))}…` : phase;
    if (place) svg.append(make('svg:path', { class: 'grid', d: `M${x - 6},4V${svg.getAttribute('height')}` }));
    svg.append(make('svg:text', { x, y: 14, class: 'phase' }, shown, make('svg:title', {}, phase)));
    if (next === undefined) svg.setAttribute('width', Math.max(svg.getAttribute('width'), x + 7.5 * phase.length));
  });
  let told = -Infinity;
  individuals.forEach(({ generation }, position) => {
    const x = left(places[position][0]);
    if (places[position][1] !== 0 || x - told < 30) return;
    svg.append(make('svg:text', { x, y: 36, 'text-anchor': 'middle' }, String(generation)));
    told = x;
  });
}

function edge([x, y], [toX, toY]) {
  const middle = (x + toX) / 2;
  return x === toX ? `M${x},${y}C${x + 14},${y} ${x + 14},${toY} ${toX},${toY}` : `M${x},${y}C${middle},${y} ${middle},${toY} ${toX},${toY}`;
}

function node(each, position, [x, y], isBest) {
  const { colour, shape } = FATES[each.fate], title = told(each);
  return make('svg:g', { class: `node mark ${isBest ? 'best' : colour}`, 'data-position': position, tabindex: -1, role: 'button', 'aria-label': title },
    make('svg:circle', { cx: x, cy: y, r: 11, class: 'halo' }), SHAPES[isBest ? 'star' : shape](x, y), make('svg:title', {}, title));
}

// One line on an individual.
function told(each) {
  const last = each.landmarks.at(-1)?.[0];
  const reached = last === null || last === undefined ? '' : `, ${showFitness(last)}`;
  return `${each.name}, ${FATES[each.fate].text}${reached}`;
}

// All of whom one descends, and itself.
function ancestors(individuals, position) {
  const found = new Set([position]);
  for (const each of found) for (const parent of individuals[each].parents) found.add(parent);
  return found;
}

// Who stands beside, over or under one; undefined for other keys, and where nobody does.
function neighbour(places, position, key) {
  const [column, row] = places[position], last = places.length - 1;
  if (key === 'Home') return 0;
  if (key === 'End') return last;
  if (key === 'ArrowUp' || key === 'ArrowDown') {
    const to = position + (key === 'ArrowUp' ? -1 : 1);
    return to >= 0 && to <= last ? to : undefined;
  }
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  const beside = places.flatMap(([other], to) => (step && other === column + step ? [to] : []));
  return beside.sort((one, other) => Math.abs(places[one][1] - row) - Math.abs(places[other][1] - row))[0];
}
