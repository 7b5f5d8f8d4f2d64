const { individuals, spent, steps, best } = data;
const find = (id) => document.getElementById(id);
const landmarkName = (place) => (steps.length === 1 ? 'the end' : `T${place + 1}`) + (steps[place] === null ? '' : ` (${show.count(steps[place])} steps)`);
const fateOf = (each, position) => (position === best ? 'best' : each.fate);
const bestName = data.isFound ? 'the network found' : 'the best so far';
const MARKS = { ...FATES, best: { colour: 'best', shape: 'star', text: bestName } };
const ROWS = 300; // of the table of all individuals, that are made at a time
let choose = () => {};

// Marks of some individuals, a group for each fate; `point` gives x and y of one, or null.
function marksOf(positions, point) {
  return Object.entries(MARKS).reverse().map(([fate, { colour, shape, text }]) => ({
    name: text, colour, shape,
    points: positions.filter((position) => fateOf(individuals[position], position) === fate).flatMap((position) => {
      const at = point(individuals[position], position);
      return at && at.every((value) => value !== null && value !== undefined)
        ? [[...at, told(individuals[position]), () => { choose(position); find('individual').scrollIntoView({ block: 'nearest' }); }]] : [];
    }),
  })).filter((marks) => marks.points.length).reverse();
}

const everyone = individuals.map((_, position) => position);
const lastOf = (each) => each.landmarks.at(-1)?.[0];

function showProgress(figure) {
  const kinds = [
    { label: 'generation', of: (position) => individuals[position].generation, show: show.count, whole: true },
    { label: 'training FLOPs', of: (position) => spent.flops[position], show: show.flops },
    { label: 'seconds', of: (position) => spent.seconds[position], show: show.seconds },
  ].filter((kind) => everyone.every((position) => kind.of(position) !== null));
  let kind = kinds[0];
  const draw = chart(figure, () => ({
    x: { label: kind.label === 'seconds' ? 'compiling and training, one after another' : kind.label, show: kind.show, whole: kind.whole },
    y: { label: data.fitness, show: showFitness },
    bands: phases().map(({ name, first, last }) => ({ name, ...(kind.whole
      ? { from: kind.of(first) - 0.5, to: kind.of(last) + 0.5 } : { from: first ? kind.of(first - 1) : kind.of(first), to: kind.of(last) }) })),
    lines: [{ name: 'best so far', colour: 'first', step: true,
      points: everyone.filter((position) => spent.best[position] !== null).map((position) => [kind.of(position), spent.best[position]]) }],
    marks: marksOf(everyone, (each, position) => [kind.of(position), lastOf(each)]),
    text: progressText(),
  }));
  figure.querySelector('.plot').before(choice('Against', kinds, (chosen) => { kind = chosen; draw(); }));
}

function progressText() {
  const known = spent.best.filter((value) => value !== null);
  if (!known.length) return 'No network has survived yet.';
  return `The best ${data.fitness} rises from ${showFitness(known[0])} to ${showFitness(known.at(-1))} in ${individuals.at(-1).generation + 1} generations.`;
}

function phases() {
  const found = [];
  individuals.forEach((each, position) => {
    if (found.at(-1)?.name === each.phase) found.at(-1).last = position;
    else found.push({ name: each.phase, first: position, last: position });
  });
  return found;
}

function showCosts(figure) {
  const known = [
    { name: 'parameters', label: 'parameters', show: show.parameters },
    { name: 'flops', label: 'FLOPs', title: 'FLOPs of an image', show: show.flops },
    { name: 'latency', label: 'latency', title: 'latency of an image', show: show.seconds },
    { name: 'batch_latency', label: 'latency of a batch', show: show.seconds },
    { name: 'memory', label: 'memory', title: 'memory of a training step', show: show.bytes },
  ].filter(({ name }) => data.fronts[name]);
  if (!known.length) {
    figure.querySelector('.plot').append(make('p', { class: 'note' }, 'No network has been measured to the end yet.'));
    return;
  }
  const ended = everyone.filter((position) => ['parent', 'survived'].includes(individuals[position].fate));
  const accuracy = (each) => each.landmarks.at(-1)[2];
  let cost = known[0];
  const draw = chart(figure, () => ({
    x: { label: `${cost.title || cost.label}, logarithmic`, show: cost.show, log: true },
    y: { label: 'validation accuracy', show: show.percent },
    lines: [{ name: 'Pareto front', colour: 'first', step: true,
      points: data.fronts[cost.name].map((position) => [individuals[position][cost.name], accuracy(individuals[position])]) }],
    marks: marksOf(ended, (each) => [each[cost.name], accuracy(each)]),
    text: `Of ${ended.length} networks that were measured to the end, ${data.fronts[cost.name].length} are on the Pareto front of accuracy and ${cost.label}.`,
  }));
  figure.querySelector('.plot').before(choice('Against', known, (chosen) => { cost = chosen; draw(); }));
}

// What was reached at early landmarks: against the threshold by generation, or against the end.
function showLandmarks(figure, describe) {
  const early = steps.slice(0, -1).map((_, place) => ({ place, label: landmarkName(place) }));
  let chosen = early[0];
  const draw = chart(figure, () => describe(chosen.place));
  figure.querySelector('.plot').before(choice('At', early, (option) => { chosen = option; draw(); }));
}

function thresholdsAt(place) {
  const thresholds = everyone.flatMap((position) => {
    const { generation, landmarks } = individuals[position], threshold = landmarks[place]?.[1];
    return threshold === null || threshold === undefined ? [] : [[generation, threshold]];
  });
  const went = individuals.filter((each) => each.fate === 'extinct' && each.landmarks.length === place + 1).length;
  return {
    x: { label: 'generation', show: show.count, whole: true },
    y: { label: `${data.fitness} at ${landmarkName(place)}`, show: showFitness },
    lines: [{ name: 'threshold', colour: 'second', step: true, dash: '6 3', points: thresholds }],
    marks: marksOf(everyone, (each) => [each.generation, each.landmarks[place]?.[0]]),
    text: `${went} of ${individuals.filter((each) => each.landmarks.length > place).length} individuals went extinct at ${landmarkName(place)}.`,
  };
}

function agreementAt(place) {
  const ended = everyone.filter((position) => individuals[position].landmarks.length === steps.length);
  return {
    x: { label: `${data.fitness} at ${landmarkName(place)}`, show: showFitness },
    y: { label: `${data.fitness} at the end`, show: showFitness },
    marks: marksOf(ended, (each) => [each.landmarks[place][0], lastOf(each)]),
    text: `${ended.length} networks, by what they had at ${landmarkName(place)} and at the end; the table below has the rank agreement.`,
  };
}

// --- One individual ---

function showIndividual(position) {
  const each = individuals[position], place = find('individual');
  const children = everyone.filter((other) => individuals[other].parents.includes(position));
  const pairs = {
    phase: `${each.phase}, generation ${each.generation}`,
    parent: each.parents.length ? links(each.parents) : 'global pooling alone',
    'made by': each.how,
    fate: fateText(each),
    children: children.length ? links(children) : null,
    parameters: show.parameters(each.parameters),
    'FLOPs an image': show.flops(each.flops),
    'latency of an image': each.latency ? show.seconds(each.latency) : null,
    'test accuracy': each.test === null ? null : show.percent(each.test),
    'training FLOPs': each.training === null ? null : show.flops(each.training),
    'compiling and training': show.seconds(each.seconds),
  };
  const list = Object.entries(pairs).filter(([, value]) => value !== null)
    .map(([name, value]) => make('div', { class: { children: 'wide', 'made by': 'broad', fate: 'broad' }[name] }, make('dt', {}, name), make('dd', {}, value)));
  place.replaceChildren(make('h3', {}, `Individual ${each.name}`), make('dl', {}, list), ...drawNetwork(each.network, `The network of ${each.name}`));
  if (steps.length === 1) return; // which is no curve
  const curve = make('figure', { class: 'chart' }, make('figcaption', {}, 'Its learning curve, among those of its generation'), make('div', { class: 'plot' }));
  place.append(curve);
  chart(curve, () => curveOf(each, position));
}

function links(positions) {
  return positions.map((position) => make('button', { type: 'button', class: 'link', onclick: () => choose(position, true) }, individuals[position].name));
}

function fateText(each) {
  const copied = each.sameAs === null ? '' : `; measured as ${individuals[each.sameAs].name}, an equal network`;
  if (each.fate === 'failed') return `failed: ${each.cause}${copied}`;
  const place = each.landmarks.length - 1, [value, threshold] = each.landmarks[place];
  const reached = value === null ? 'no finite fitness' : showFitness(value);
  if (each.fate !== 'extinct') return `${FATES[each.fate].text}, with ${reached}${copied}`;
  const needed = threshold === null ? '' : `, where ${showFitness(threshold)} was needed`;
  return `extinct at ${landmarkName(place)}, with ${reached}${needed}${copied}`;
}

function curveOf(each, position) {
  const at = (place) => steps[place] ?? place + 1;
  const course = (other) => other.landmarks.flatMap(([value], place) => (value === null ? [] : [[at(place), value]]));
  const others = individuals.filter((other, place) => other.generation === each.generation && place !== position);
  const own = course(each);
  const needed = each.landmarks.flatMap(([, threshold], place) => (threshold === null ? [] : [[at(place), threshold]]));
  return {
    x: { label: 'training steps', show: show.count },
    y: { label: data.fitness, show: showFitness },
    lines: [...others.map((other) => ({ name: 'others of its generation', colour: 'faint', points: course(other) })).filter((line) => line.points.length),
      { name: each.name, colour: 'first', points: own }],
    marks: [{ colour: 'first', shape: 'dot', points: own.map(([x, y]) => [x, y, `${showFitness(y)} after ${show.count(x)} steps`]) },
      ...(needed.length ? [{ name: 'threshold', colour: 'second', shape: 'cross', points: needed.map(([x, y]) => [x, y, `needed: ${showFitness(y)}`]) }] : [])],
    text: own.length ? `${each.name}: ${own.map(([x, y]) => `${showFitness(y)} after ${show.count(x)} steps`).join(', ')}` : `${each.name} was never measured`,
  };
}

// Made when it is opened, and some rows at a time: there can be thousands.
function listEveryone(details) {
  const heads = ['individual', 'phase', 'parent', 'made by', 'fate', 'parameters', 'FLOPs', ...steps.map((_, place) => landmarkName(place))];
  const body = make('tbody'), more = make('button', { type: 'button', class: 'link', onclick: () => addRows() });
  const addRows = () => {
    const start = body.rows.length;
    body.append(...everyone.slice(start, start + ROWS).map(rowOf));
    more.textContent = `The next ${Math.min(ROWS, individuals.length - body.rows.length)} of ${individuals.length}`;
    more.hidden = body.rows.length === individuals.length;
  };
  addRows();
  details.querySelector('div').replaceChildren(make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'All individuals' },
    make('table', {}, make('thead', {}, make('tr', {}, heads.map((head) => make('th', { scope: 'col' }, head)))), body)), more);
}

function rowOf(position) {
  const each = individuals[position];
  const words = [each.phase, each.parents.map((parent) => individuals[parent].name).join(', '), each.how, each.cause ? `failed: ${each.cause}` : FATES[each.fate].text];
  const reached = steps.map((_, place) => each.landmarks[place]?.[0]).map((value) => (typeof value === 'number' ? showFitness(value) : ''));
  return make('tr', {}, make('th', { scope: 'row' }, links([position])), words.map((text) => make('td', { class: 'text' }, text)),
    [show.parameters(each.parameters), show.flops(each.flops), ...reached].map((text) => make('td', {}, text)));
}

if (individuals.length) {
  find('fates').append(...Object.values(MARKS).map(({ text, ...mark }) => make('li', {}, sample(mark), text)));
  choose = drawTree(find('tree-plot'), individuals, best, showIndividual);
  choose(best ?? individuals.length - 1);
  showProgress(find('progress-chart'));
  showCosts(find('costs-chart'));
  if (steps.length > 1) {
    showLandmarks(find('thresholds-chart'), thresholdsAt);
    showLandmarks(find('agreement-chart'), agreementAt);
  }
  find('everyone').addEventListener('toggle', () => listEveryone(find('everyone')), { once: true });
}
if (data.network !== null) find('network-plot').append(...drawNetwork(data.network, 'The network'));
