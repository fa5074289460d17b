/** Build and development settings. `npm run dev` forwards API requests to the server at LIGHTCONE_URL. */

import { defineConfig } from "vite";
import { fingerprint } from "./fingerprint";

const server = process.env["LIGHTCONE_URL"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  // Relative, so that the page also works under a path prefix of a reverse proxy.
  base: "./",
  plugins: [fingerprint()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: ["index.html", "operator.html"] },
  },
  server: {
    proxy: {
      "/v1": { target: server, changeOrigin: true, ws: true, rewriteWsOrigin: true },
      "/readyz": { target: server, changeOrigin: true },
      "/metrics": { target: server, changeOrigin: true },
    },
  },
});
