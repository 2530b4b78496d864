import { defineConfig } from "vite";

export default defineConfig({
  base: "/console/",
  build: {
    // Of browsers that have what the code uses: Chromium 121, Firefox 121, Safari 17.5.
    target: ["chrome121", "firefox121", "safari17.5"],
    // `.gitignore` stays, so that the directory is there for the server's build.
    emptyOutDir: false,
    // A data URL would be refused by the page's content security policy.
    assetsInlineLimit: 0,
    modulePreload: false,
    chunkSizeWarningLimit: 1000,
    // What is bundled is passed on with its licences.
    license: { fileName: "licenses.txt" },
  },
});
