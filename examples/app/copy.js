// Copies a caption when the button beside it is pressed. It is added once for a page.
if (!window.copiesCaptions) {
  window.copiesCaptions = true;
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button.copy");
    const caption = button?.closest(".answer")?.querySelector(".caption");
    if (!caption) return;
    try {
      await navigator.clipboard.writeText(caption.innerText);
      button.textContent = "Copied";
    } catch {
      // Without HTTPS, browsers let no page write to the clipboard: the caption is selected.
      getSelection().selectAllChildren(caption);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}
