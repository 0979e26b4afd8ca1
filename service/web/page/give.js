// The ways a picture comes in: chosen, taken, dropped, pasted, or one of the samples.

/**
 * Wire the page's inputs.
 * @param {HTMLInputElement[]} inputs
 * @param {NodeListOf<HTMLButtonElement>} samples
 * @param {(blob: Blob, source: {name: string, url?: string}) => void} take the picture, and where curl finds it
 * @param {(words: string) => void} refuse
 */
export function acceptPictures(inputs, samples, take, refuse) {
  const takeFile = (files) => {
    const [file] = files;
    if (file) take(file, { name: file.name || "picture" });
    return Boolean(file);
  };
  for (const input of inputs) {
    input.addEventListener("click", () => (input.value = "")); // so that the same file can be chosen again
    input.addEventListener("change", () => takeFile(input.files));
  }
  addEventListener("paste", (event) => takeFile(event.clipboardData.files));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping"); // out of the window
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (!takeFile(event.dataTransfer.files)) refuse("What was dropped is not a file; save the picture, and drop that.");
  });
  for (const button of samples) {
    button.addEventListener("click", async () => {
      const name = button.dataset.sample;
      const url = new URL(`static/samples/${name}`, document.baseURI).href;
      try {
        const response = await fetch(url);
        if (!response.ok) throw new TypeError(`${response.status}`);
        take(await response.blob(), { name, url });
      } catch {
        refuse("The sample cannot be loaded: the service may be down, or the network may be.");
      }
    });
  }
}
