'use strict';

const data = JSON.parse(document.getElementById('data').textContent);

// Makes an element of HTML, or of SVG where its name begins with "svg:"; text is never read as HTML.
function make(name, attributes = {}, ...content) {
  const made = name.startsWith('svg:')
    ? document.createElementNS('http://www.w3.org/2000/svg', name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...content.flat().filter((each) => each !== null && each !== undefined));
  return made;
}

// Numbers as the tables have them.
const show = {
  number: (value) => (Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(1) : String(+value.toPrecision(4))),
  count: (value) => Math.round(value).toLocaleString('en'),
  percent: (value) => `${(100 * value).toFixed(1)} %`,
  parameters: (value) => (value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : show.count(value)),
  flops: (value) => {
    const [size, unit] = [[1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M']].find(([least]) => value >= least) || [1, ''];
    return unit ? `${(value / size).toFixed(1)} ${unit}` : show.count(value);
  },
  seconds: (value) => {
    if (value >= 7200) return `${(value / 3600).toFixed(1)} h`;
    if (value >= 120) return `${(value / 60).toFixed(1)} min`;
    if (value >= 1 || value === 0) return `${value.toFixed(1)} s`;
    return value >= 0.01 ? `${Math.round(1000 * value)} ms` : `${+(1000 * value).toPrecision(2)} ms`;
  },
  bytes: (value) => (value >= 1e9 ? `${(value / 1e9).toFixed(1)} GB` : `${(value / 1e6).toFixed(1)} MB`),
};
const showFitness = data.isAccuracy ? show.percent : show.number;

// Lets one of some things be chosen, if there are several, and tells of it; gives the element.
function choice(legend, options, chosen) {
  const group = `choice-${choice.count = (choice.count || 0) + 1}`;
  return make('fieldset', { class: 'choice', hidden: options.length < 2 }, make('legend', {}, legend),
    options.map((option, place) => make('label', {},
      make('input', { type: 'radio', name: group, checked: place === 0, onchange: () => chosen(option) }), option.label)));
}
