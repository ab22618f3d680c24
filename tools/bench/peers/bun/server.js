// Bun's own server, based on uWebSockets: native topics, compression off by default.
const [mode, port] = process.argv.slice(2)

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(port),
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response('no upgrade', { status: 400 })),
  websocket:
    mode === 'echo'
      ? {
          message: (socket, message) => {
            socket.send(message)
          },
        }
      : {
          open: (socket) => socket.subscribe('bench'),
          message: (socket, message) => {
            server.publish('bench', message)
          },
        },
})
