const COLOURS = ['first', 'second', 'third', 'fourth', 'fifth', 'sixth'], DASHES = [null, '7 3', '2 3', '9 3 2 3'];

// The curves of several runs; colours and dashes together tell them apart.
function compare(figure, runs) {
  const kinds = [
    { label: 'training FLOPs', name: 'flops', show: show.flops },
    { label: 'seconds', name: 'seconds', show: show.seconds },
    { label: 'generation', name: 'generations', show: show.count, whole: true },
  ].filter(({ name }) => runs.every((run) => run[name].every((value) => value !== null)));
  let kind = kinds[0];
  const draw = chart(figure, () => ({
    x: { label: kind.label === 'seconds' ? 'compiling and training, one after another' : kind.label, show: kind.show, whole: kind.whole },
    y: { label: data.fitness, show: showFitness },
    lines: runs.map((run, place) => ({ name: run.name, colour: COLOURS[place % COLOURS.length], step: true,
      dash: DASHES[Math.floor(place / COLOURS.length) % DASHES.length],
      points: run.best.flatMap((value, each) => (value === null ? [] : [[run[kind.name][each], value]])) })),
    text: runs.map((run) => `${run.name}: ${run.best.at(-1) === null ? 'nothing survived yet' : showFitness(run.best.at(-1))}`).join('; '),
  }));
  figure.querySelector('.plot').before(choice('Against', kinds, (chosen) => { kind = chosen; draw(); }));
}

if (data.runs.length) compare(document.getElementById('comparison-chart'), data.runs);
