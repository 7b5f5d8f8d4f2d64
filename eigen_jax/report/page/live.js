// Of a page that is served: it is loaded anew when what it shows has changed, with the individual that was chosen.
{
  const SECONDS = 3;
  const heading = () => document.querySelector('#individual h3')?.textContent ?? '';
  const shownFirst = heading();
  const kept = sessionStorage.getItem('chosen');
  const place = kept && data.individuals ? data.individuals.findIndex(({ name }) => kept === `Individual ${name}`) : -1;
  if (place >= 0) choose(place);
  setInterval(async () => {
    const answer = await fetch('version').catch(() => null);
    if (!answer?.ok || (await answer.text()) === VERSION) return;
    if (heading() === shownFirst) sessionStorage.removeItem('chosen');
    else sessionStorage.setItem('chosen', heading());
    location.reload();
  }, SECONDS * 1000);
}
